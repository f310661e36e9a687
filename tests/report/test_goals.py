"""Goals are judged from the record alone, and told in words everywhere."""

from __future__ import annotations

import dataclasses
import io
from xml.etree import ElementTree

import pytest
from rich.console import Console

from slimnet.records import Size
from slimnet.report import (
    anything_missed,
    evaluate_goals,
    goals_table,
    html_page,
    junit_error,
    junit_xml,
    markdown_error,
    markdown_summary,
    report_as_dict,
    summary_lines,
    verdict_line,
)
from slimnet.report.baseline import Baseline, baseline_notes

JUDGED = {"max_drop": 6.0, "runtime": "ort-cpu", "latency_batch": (1, 8)}
BASELINE = Baseline(
    "old.json", None, "accuracy", 4.1, 1000, Size(1, 1, 1), Size(4_900_000, 1, 752_000_000),
    950, 2.5, "a processor",
)  # fmt: skip


def judged(report, baseline=None, **wanted):
    asked = dataclasses.replace(report, settings=JUDGED | wanted)
    return dataclasses.replace(asked, goals=evaluate_goals(asked, baseline))


def outcomes(report):
    return {goal.name: goal.met for goal in report.goals}


@pytest.mark.parametrize(
    ("name", "met", "missed"),
    [
        ("min_speedup", 2.4, 2.41),  # the interval is 2.40 to 2.50, the median 2.47
        ("max_params", 4_900_000, 4_899_999),
        ("max_macs", 752_000_000, 751_999_999),
        ("max_bytes", 950, 949),
        ("max_latency_ms", 0.5, 0.49),
    ],
)
def test_a_goal_is_met_up_to_its_limit(name, met, missed, report):
    assert outcomes(judged(report, **{name: met})) == {name: True}
    assert outcomes(judged(report, **{name: missed})) == {name: False}


def test_timings_are_those_of_the_first_batch_size_on_the_chosen_runtime(report):
    slow = judged(report, min_speedup=1, latency_batch=(32, 1))
    assert outcomes(slow) == {"min_speedup": False}
    assert (slow.goals[0].got, "batch 32" in slow.goals[0].unit) == (0.8, True)
    elsewhere = judged(report, min_speedup=1, max_latency_ms=9, runtime="torch-cuda")
    assert [(goal.got, goal.met) for goal in elsewhere.goals] == [(None, False)] * 2
    assert "got nothing measured" in verdict_line(elsewhere)


def test_a_baseline_leaves_as_much_room_as_the_regression_says(report):
    assert set(outcomes(judged(report, BASELINE, max_regression=0.0)).values()) == {True}
    size = report.slim_size
    worse = dataclasses.replace(
        report, slim_size=Size(size.parameters + 1, 1, size.macs),
        test_drop=dataclasses.replace(report.test_drop, points=5.0),
    )  # fmt: skip
    found = outcomes(judged(worse, BASELINE, max_regression=0.0))
    assert [name for name, met in found.items() if not met] == ["baseline_drop", "baseline_params"]
    assert all(outcomes(judged(worse, BASELINE, max_regression=1.0)).values())


def test_a_slower_one_counts_only_where_both_intervals_say_so(report):
    faster = dataclasses.replace(BASELINE, speedup_low=2.51)  # this run's interval ends at 2.50
    assert not outcomes(judged(report, faster, max_regression=0.0))["baseline_speedup"]
    assert outcomes(judged(report, faster, max_regression=1.0))["baseline_speedup"]


def test_what_makes_the_comparison_less_than_exact_is_told(report):
    assert baseline_notes(report, None) == ()
    (note,) = baseline_notes(report, BASELINE)
    assert "another processor (a processor)" in note
    other = dataclasses.replace(BASELINE, source_sha256="f")
    assert "new weights" in baseline_notes(report, other)[0]


def test_the_budget_is_missed_where_it_is_not_sure(report):
    upper = report.selection_drop.upper_points
    assert upper == 5.65
    assert not anything_missed(judged(report, max_drop=upper))
    over = judged(report, max_drop=upper - 0.01)
    assert anything_missed(over)
    assert "MISSED: the budget (at most 5.64 points of accuracy may be lost" in verdict_line(over)
    nothing = dataclasses.replace(report, slim_size=report.original_size)
    assert not anything_missed(judged(nothing, max_drop=0))
    assert anything_missed(judged(nothing, max_drop=0, max_bytes=999))
    assert not anything_missed(judged(nothing, max_bytes=999))


def test_the_outcome_is_a_word_in_every_text(report):
    found = judged(report, min_speedup=3, max_bytes=999)
    line = verdict_line(found)
    assert line.startswith("MISSED: min-speedup (wanted at least 3, got 2.4 times as fast on")
    assert line.endswith("Removed 58 % of the parameters, 60 % of the conv weights and "
                         "59 % of the MACs.")  # fmt: skip
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(goals_table(found))
    for text in (console.file.getvalue(), html_page(found), markdown_summary(found)):
        assert "MISSED" in text
        assert "max-bytes" in text
    assert ">MISSED</td>" in html_page(found)
    goals = report_as_dict(found)["goals"]
    assert [(goal["name"], goal["met"]) for goal in goals] == [
        ("min_speedup", False), ("max_bytes", True),
    ]  # fmt: skip
    met = judged(report, max_params=10**9, max_bytes=999)
    assert summary_lines(met)[0] == "All 2 goals were met."
    assert "MISSED" not in html_page(met) + markdown_summary(met)


def test_without_goals_nothing_is_said_of_them(report):
    assert goals_table(report) is None
    assert verdict_line(report) == summary_lines(report)[0]
    assert "Goals" not in html_page(judged(report))


def test_markdown_is_tables_that_no_name_breaks_out_of(report):
    found = judged(dataclasses.replace(report, source="a|b\n<c>`_`"), max_bytes=999)
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
    told = dataclasses.replace(report, seconds={"searching": 12.5})
    found = cases(junit_xml(judged(told, min_speedup=3, max_bytes=999, max_drop=1)))
    assert list(found) == ["min-speedup", "max-bytes", "budget", "proof"]
    failed = {name: case.find("failure") for name, case in found.items()}
    assert [name for name, of in failed.items() if of is not None] == ["min-speedup", "budget"]
    assert failed["min-speedup"].get("message").startswith("wanted at least 3, got 2.4 times")
    assert "at most 5.65 at 95 % confidence" in failed["budget"].get("message")
    assert "differ by 1.0e-06" in found["proof"].findtext("system-out")


@pytest.mark.parametrize(("code", "name"), [(1, "run"), (2, "input"), (4, "proof"), (130, "run")])
def test_junit_of_a_run_without_result_is_one_error(code, name):
    (found,) = cases(junit_error('<no> "&\x00\ud800 model', code)).items()
    assert found[0] == name
    assert found[1].find("error").get("message") == '<no> "&\ufffd\ufffd model'
