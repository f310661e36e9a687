"""What a report says of the budget: confirmed, estimated, missed or unchanged, and since when."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from slimnet.options import Options
from slimnet.records.search import Trajectory
from slimnet.report import plots
from slimnet.report.build import _verdict, stated_drop, with_outcomes
from slimnet.report.ci import markdown_summary
from slimnet.report.goals import budget_sentence
from slimnet.report.html import html_page
from slimnet.report.json_report import as_plain, save_report
from slimnet.report.notes import power_note
from slimnet.report.summary import summary_lines, verdict_line
from slimnet.report.tables import confirmation_rows, result_rows
from slimnet.tasks import confirmable_points

SENTENCES = {
    "confirmed": "confirmed: at most 6 points of accuracy were lost, at 95 % confidence, on 1,000 "
    "images that decided nothing",
    "estimated": "estimated: 4.40 points of accuracy were lost on 500 images that also guided the "
    "search; at most 6 points of accuracy may be lost",
    "missed": "missed: at most 6 points of accuracy may be lost, at 95 % confidence; not even the "
    "safest state was confirmed, and the result is the original",
    "unchanged": "unchanged: nothing went, where at most 6 points of accuracy may be lost",
}


@pytest.mark.parametrize("verdict", SENTENCES)
def test_every_verdict_has_a_sentence(by_verdict, verdict):
    assert budget_sentence(by_verdict[verdict]) == SENTENCES[verdict]


def test_the_first_lines_of_a_summary_say_whether_it_can_be_relied_on(by_verdict):
    lines = {verdict: summary_lines(report) for verdict, report in by_verdict.items()}
    for verdict in ("confirmed", "estimated"):
        sentence = SENTENCES[verdict]
        assert lines[verdict][0].startswith("Removed 58 % of the parameters")
        assert lines[verdict][1] == f"{sentence[0].upper()}{sentence[1:]}."
    assert lines["missed"][0] == f"MISSED: the budget ({SENTENCES['missed'][8:]})."
    assert lines["missed"][1] == "Nothing was removed: the safest state was not confirmed."
    assert lines["unchanged"][0] == "Nothing was removed: nothing can go."
    told = {verdict: "Estimate:" in "\n".join(lines[verdict]) for verdict in lines}
    assert told == {"confirmed": True, "estimated": False, "missed": False, "unchanged": False}


def test_an_impossible_confirmation_says_why(by_verdict):
    report = by_verdict["missed"]
    why = "with 40 confirmation images not even an unchanged network can be confirmed"
    hopeless = dataclasses.replace(report.confirmation, tests=(), impossible=why)
    line = verdict_line(dataclasses.replace(report, confirmation=hopeless))
    assert f"at 95 % confidence; {why}, and the result is the original" in line


@pytest.mark.parametrize("verdict", SENTENCES)
def test_every_output_holds_the_verdict(by_verdict, verdict):
    report = by_verdict[verdict]
    assert as_plain(report)["verdict"] == verdict
    page, text = html_page(report), markdown_summary(report)
    for line in summary_lines(report)[:2]:
        assert line in page
    assert re.sub(r"\\(.)", r"\1", text).splitlines()[3].startswith(verdict_line(report))
    missed = verdict == "missed"
    assert ("MISSED" in page) == ("MISSED" in text) == missed


def test_only_tested_drops_have_intervals_and_rows(by_verdict):
    confirmed, estimated = by_verdict["confirmed"], by_verdict["estimated"]
    assert [row[0] for row in result_rows(confirmed)[:2]] == [
        "accuracy, 500 selection images", "accuracy, 1,000 confirmation images",
    ]  # fmt: skip
    assert result_rows(confirmed)[0][3] == "−4.40 points"
    assert result_rows(confirmed)[1][3] == "−4.10 points [−5.35, −2.85]"
    assert [row[0] for row in result_rows(estimated)[:2]] == [
        "accuracy, 500 selection images", "parameters",
    ]  # fmt: skip


def test_the_page_lists_every_test_and_draws_it(by_verdict):
    report = by_verdict["confirmed"]
    (test,) = report.confirmation.tests
    failed = dataclasses.replace(
        test, step=7, file="slim.int8.onnx", p_value=0.2071, confirmed=False
    )
    tests = dataclasses.replace(report.confirmation, tests=(test, failed))
    found = dataclasses.replace(report, confirmation=tests)
    assert confirmation_rows(found) == [
        ("1, slim.onnx", "58.0 %", "−4.40", "−4.10 [−5.35, −2.85]", "0.030", "confirmed"),
        ("7, slim.int8.onnx", "58.0 %", "−4.40", "−4.10 [−5.35, −2.85]", "0.207", "not confirmed"),
    ]
    for given, tested in ((found, True), (by_verdict["missed"], True),
                          (by_verdict["estimated"], False)):  # fmt: skip
        page, drawn = html_page(given), plots.trajectory_plot(given)
        assert ("Tests on the confirmation images, from the safest state on" in page) == tested
        assert (">tests<" in drawn) == tested
    page = html_page(found)
    assert all(cell in page for row in confirmation_rows(found) for cell in row)


KEPT, NOTHING = Trajectory((), 2, "it ended", {}), Trajectory((), 0, "nothing can go", {})


@pytest.mark.parametrize(
    ("trajectory", "tests", "impossible", "verdict"),
    [
        (KEPT, 1, "", "confirmed"),
        (NOTHING, 1, "", "missed"),
        (NOTHING, 0, "nothing can go", "missed"),
        (NOTHING, 0, "", "unchanged"),
        (NOTHING, 0, "too few images, but nothing could go anyway", "unchanged"),
        (KEPT, None, "", "estimated"),
        (NOTHING, None, "", "unchanged"),
    ],
)
def test_the_verdict_follows_from_tests_and_result(report, trajectory, tests, impossible, verdict):
    confirmation = None
    if tests is not None:
        confirmation = dataclasses.replace(
            report.confirmation, tests=report.confirmation.tests[:tests], impossible=impossible
        )
    assert _verdict(trajectory, confirmation) == verdict


def test_the_stated_drop_is_that_of_the_images_that_decided_least(by_verdict):
    for verdict, points in (("confirmed", 4.1), ("estimated", 4.4)):
        report = by_verdict[verdict]
        drops = {"selection": report.selection_drop, "confirmation": report.confirmation_drop}
        drops = {name: drop for name, drop in drops.items() if drop}
        assert stated_drop(drops) == report.drop
        assert report.drop.points == points


@pytest.fixture
def planned(report):
    return dataclasses.replace(report.confirmation, tests=())


def earlier_runs(planned, *places):
    return with_outcomes(planned, (), *places).earlier_runs


def test_outcomes_are_added_to_the_plan(report, planned):
    tests = report.confirmation.tests
    assert with_outcomes(planned, tests, None) == report.confirmation
    assert with_outcomes(None, tests, None) is None


def test_earlier_runs_on_the_same_images_are_counted(report, planned, tmp_path):
    """Each report knows of those before it, so that the longer history counts, not the sum."""
    folder, baseline = tmp_path / "slim", tmp_path / "old.json"
    folder.mkdir()
    assert earlier_runs(planned, folder, baseline, None) == 0
    save_report(report, folder / "report.json")
    assert earlier_runs(planned, folder, None) == 1
    again = dataclasses.replace(report.confirmation, earlier_runs=4)
    save_report(dataclasses.replace(report, confirmation=again), baseline)
    assert earlier_runs(planned, None, baseline) == 5
    assert earlier_runs(planned, folder, baseline) == 5
    assert earlier_runs(planned, folder / "report.json", str(baseline)) == 5


def test_runs_on_other_images_or_without_confirmation_do_not_count(by_verdict, planned, tmp_path):
    other = dataclasses.replace(planned, images_sha256="0" * 64)
    save_report(by_verdict["confirmed"], tmp_path / "report.json")
    assert earlier_runs(other, tmp_path) == 0
    save_report(by_verdict["estimated"], tmp_path / "report.json")
    assert earlier_runs(planned, tmp_path) == 0
    save_report(by_verdict["missed"], tmp_path / "report.json")
    assert earlier_runs(planned, tmp_path) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: "",
        lambda content: "[]",
        lambda content: "\x00",
        lambda content: json.dumps(content)[:-5],
        lambda content: json.dumps(content | {"confirmation": []}),
        lambda content: json.dumps(content | {"confirmation": {}}),
        lambda content: json.dumps(
            content | {"confirmation": content["confirmation"] | {"earlier_runs": "many"}}
        ),
        lambda content: json.dumps(
            content | {"confirmation": content["confirmation"] | {"earlier_runs": None}}
        ),
        lambda content: json.dumps(content).replace('"earlier_runs": 0', '"earlier_runs": 1e999'),
        lambda content: "[" * 100_000,
    ],
)
def test_a_damaged_report_knows_of_no_run(report, planned, tmp_path, damage):
    (tmp_path / "report.json").write_text(damage(as_plain(report)), encoding="utf-8")
    assert earlier_runs(planned, tmp_path) == 0


@pytest.mark.parametrize(("images", "more"), [(317, 1000), (1000, 3000), (9000, 27_000)])
def test_before_the_search_it_is_said_what_the_images_allow(planned, images, more):
    options = Options(max_drop=5.0)
    points = confirmable_points(images, 5.0, 0.95)
    plan = dataclasses.replace(planned, images=images, confirmable_points=points)
    assert power_note(plan, options) == (
        f"note: {images:,} images for confirmation; networks that truly lose more than about "
        f"{points:.1f} points will mostly not be confirmed. {more:,} more images would allow "
        f"about {confirmable_points(images + more, 5.0, 0.95):.1f}"
    )
