"""JUnit XML and Markdown for a CI pipeline."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest

from slimnet.report.ci import junit_error, junit_xml, markdown_error, markdown_summary
from slimnet.report.goals import evaluate_goals


def with_goals(report, **wanted):
    settings = {"max_drop": 6.0, "runtime": "ort-cpu", "latency_batch": (1, 8)} | wanted
    report = dataclasses.replace(report, settings=settings)
    return dataclasses.replace(report, goals=evaluate_goals(report))


def test_no_name_breaks_out_of_the_markdown_tables(report):
    found = with_goals(dataclasses.replace(report, source="a|b\n<c>`_`"), max_bytes=999)
    lines = markdown_summary(found).splitlines()
    assert lines[:2] == ["", r"### slimnet: a\|b \<c\>\`\_\`"]
    tables = [line for line in lines if line.startswith("|")]
    cells = [line.replace(r"\|", "").count("|") - 1 for line in tables]
    assert cells == [5] * 3 + [4] * (2 + 6 + len(report.latency))
    assert markdown_error("no *model*\n", 2).endswith("(exit code 2)\n\nno \\*model\\*\n")


def cases(text):
    root = ElementTree.fromstring(text.encode())
    assert [root.tag, *(child.tag for child in root)] == ["testsuites", "testsuite"]
    found = {case.get("name"): case for case in root.iter("testcase")}
    assert int(root.get("tests")) == len(found)
    for kind in ("failure", "error"):
        assert int(root.get(f"{kind}s")) == len(list(root.iter(kind)))
    return found


def test_junit_has_a_case_a_goal_and_for_budget_and_proof(report):
    timed = dataclasses.replace(report, seconds={"searching": 12.5})
    found = cases(junit_xml(with_goals(timed, min_speedup=3, max_bytes=999)))
    assert list(found) == ["min-speedup", "max-bytes", "budget", "proof"]
    failed = {name: case.find("failure") for name, case in found.items()}
    assert [name for name, of in failed.items() if of is not None] == ["min-speedup"]
    assert failed["min-speedup"].get("message").startswith("wanted at least 3, got 2.4 times")
    assert found["budget"].findtext("system-out").startswith("confirmed: at most 6 points of acc")
    assert "differ by 1.0e-06" in found["proof"].findtext("system-out")


def test_the_case_of_the_budget_fails_only_where_it_was_missed(by_verdict):
    for verdict, report in by_verdict.items():
        budget = cases(junit_xml(with_goals(report)))["budget"]
        failure = budget.find("failure")
        text = budget.findtext("system-out") if failure is None else failure.get("message")
        assert (failure is not None) == (verdict == "missed")
        assert text.startswith(f"{verdict}: ")


@pytest.mark.parametrize(("code", "name"), [(1, "run"), (2, "input"), (4, "proof"), (130, "run")])
def test_junit_of_a_run_without_result_is_one_error(code, name):
    (found,) = cases(junit_error('<no> "&\x00\ud800 model', code)).items()
    assert found[0] == name
    assert found[1].find("error").get("message") == '<no> "&\ufffd\ufffd model'
