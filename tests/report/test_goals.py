"""Goals and budget, worded the same everywhere; an earlier report is read with distrust."""

from __future__ import annotations

import dataclasses
import io
import json

import pytest
import torch
from rich.console import Console
from torch import nn

from slimnet.errors import InputError
from slimnet.options import Options
from slimnet.records.commands import Goal
from slimnet.records.data import LoadedModel
from slimnet.records.measured import Size
from slimnet.report.ci import markdown_summary
from slimnet.report.goals import (
    Baseline,
    anything_missed,
    baseline_notes,
    evaluate_goals,
    goal_sentence,
    goals_table,
    read_baseline,
    require_same_network,
)
from slimnet.report.html import html_page
from slimnet.report.json_report import as_plain
from slimnet.report.summary import summary_lines, verdict_line

SETTINGS = {"max_drop": 6.0, "runtime": "ort-cpu", "latency_batch": (1, 8)}


@pytest.fixture
def baseline(report):
    return Baseline(
        schema_version=2,
        source_sha256=None,
        environment={"cpu": "a processor"},
        original_size=report.original_size,
        slim_size=report.slim_size,
        selection_drop=report.selection_drop,
        confirmation_drop=report.confirmation_drop,
        artefacts=report.artefacts,
        latency=(dataclasses.replace(report.latency[0], speedup_low=2.5),),
        path="old.json",
    )


def with_goals(report, baseline=None, **wanted):
    asked = dataclasses.replace(report, settings=SETTINGS | wanted)
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
    assert outcomes(with_goals(report, **{name: met})) == {name: True}
    assert outcomes(with_goals(report, **{name: missed})) == {name: False}


def test_timings_are_those_of_the_first_batch_size_on_the_chosen_runtime(report):
    slow = with_goals(report, min_speedup=1, latency_batch=(32, 1))
    assert outcomes(slow) == {"min_speedup": False}
    assert (slow.goals[0].got, "batch 32" in slow.goals[0].unit) == (0.8, True)
    elsewhere = with_goals(report, min_speedup=1, max_latency_ms=9, runtime="torch-cuda")
    assert [(goal.got, goal.met) for goal in elsewhere.goals] == [(None, False)] * 2
    assert "got nothing measured" in verdict_line(elsewhere)


def test_a_baseline_leaves_as_much_room_as_the_regression_says(report, baseline):
    assert set(outcomes(with_goals(report, baseline, max_regression=0.0)).values()) == {True}
    size = report.slim_size
    worse = dataclasses.replace(
        report, slim_size=Size(size.parameters + 1, 1, size.macs),
        confirmation_drop=dataclasses.replace(report.confirmation_drop, points=5.0),
    )  # fmt: skip
    found = outcomes(with_goals(worse, baseline, max_regression=0.0))
    assert [name for name, met in found.items() if not met] == ["baseline_drop", "baseline_params"]
    assert all(outcomes(with_goals(worse, baseline, max_regression=1.0)).values())


def test_a_slower_one_counts_only_if_both_intervals_say_so(report, baseline):
    timing = dataclasses.replace(baseline.latency[0], speedup_low=2.51)  # this run's ends at 2.50
    faster = dataclasses.replace(baseline, latency=(timing,))
    assert not outcomes(with_goals(report, faster, max_regression=0.0))["baseline_speedup"]
    assert outcomes(with_goals(report, faster, max_regression=1.0))["baseline_speedup"]


def test_reasons_why_the_comparison_is_not_exact_are_noted(report, baseline):
    assert baseline_notes(report, None) == ()
    (note,) = baseline_notes(report, baseline)
    assert "another processor (a processor)" in note
    other = dataclasses.replace(baseline, source_sha256="f")
    assert "new weights" in baseline_notes(report, other)[0]


def test_the_budget_is_missed_where_nothing_could_be_confirmed(by_verdict):
    for verdict, report in by_verdict.items():
        missed = verdict == "missed"
        assert anything_missed(with_goals(report, max_bytes=999)) == missed
        assert anything_missed(with_goals(report, max_bytes=949))
        line = "MISSED: the budget (at most 6 points of accuracy may be lost, at 95 % confidence; "
        assert (line in verdict_line(with_goals(report))) == missed


def test_the_outcome_is_a_word_in_every_text(report):
    found = with_goals(report, min_speedup=3, max_bytes=999)
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
    goals = as_plain(found)["goals"]
    assert [(goal["name"], goal["met"]) for goal in goals] == [
        ("min_speedup", False), ("max_bytes", True),
    ]  # fmt: skip
    met = with_goals(report, max_params=10**9, max_bytes=999)
    assert summary_lines(met)[0] == "All 2 goals were met."
    assert "MISSED" not in html_page(met) + markdown_summary(met)


def test_a_baseline_is_compared_by_the_drop_that_each_report_states(report, baseline, by_verdict):
    """That on the confirmation images where there are any, else that on the selection images."""
    estimated = dataclasses.replace(baseline, confirmation_drop=None)
    assert (baseline.drop.points, estimated.drop.points) == (4.1, 4.4)
    for found, before, wanted, got, images in (
        (report, baseline, 5.1, 4.1, "confirmation"),
        (by_verdict["estimated"], estimated, 5.4, 4.4, "selection"),
    ):
        goal = with_goals(found, before, max_regression=1.0).goals[0]
        assert (goal.name, goal.got) == ("baseline_drop", got)
        assert goal.wanted == pytest.approx(wanted)
        assert goal.unit == f"points of accuracy lost on the {images} images"


def test_without_goals_nothing_is_said_of_them(report):
    assert goals_table(report) is None
    assert verdict_line(report) == summary_lines(report)[0]
    assert "Goals" not in html_page(with_goals(report))


@pytest.mark.parametrize(
    ("wanted", "got", "words"),
    [
        (1.01, 1.0100004, "wanted at most 1.01, got 1.0100004 ms"),
        (1.01, 1.02, "wanted at most 1.01, got 1.02 ms"),
        (1_000_000, 1_000_001, "wanted at most 1,000,000, got 1,000,001 ms"),
        (0.5, 0.4, "wanted at most 0.5, got 0.4 ms"),
        (100, 20, "wanted at most 100, got 20 ms"),
        (5, None, "wanted at most 5, got nothing measured ms"),
    ],
)
def test_the_two_numbers_of_a_miss_differ(wanted, got, words):
    met = got is not None and got <= wanted
    assert goal_sentence(Goal("max_latency_ms", wanted, got, "ms", met)) == words


@pytest.fixture
def plain(report):
    return as_plain(report)


def read(plain, folder, quantity="accuracy", **changes):
    path = folder / "report.json"
    path.write_text(plain if isinstance(plain, str) else json.dumps(plain), encoding="utf-8")
    return read_baseline(Options(baseline=str(path), **changes), quantity)


def test_an_own_report_reads_back(plain, report, tmp_path):
    found = read(plain, tmp_path)
    assert (found.slim_size, found.original_size) == (report.slim_size, report.original_size)
    assert (found.confirmation_drop.points, found.artefacts.slim_onnx.bytes) == (4.1, 950)
    assert [timing.speedup_low for timing in found.latency] == [2.4]
    assert read(plain, tmp_path, latency_batch=(32,)).latency[0].speedup_low == 0.8
    assert read_baseline(Options(), "accuracy") is None
    with pytest.raises(InputError, match="its threads were 1, not 4"):
        read(plain, tmp_path, threads=4)


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (["schema_version"], 1, "schema_version: Input should be 2"),
        (["selection_drop", "points"], "much", "selection_drop.points: Input should be a valid"),
        (["confirmation_drop", "points"], None, "confirmation_drop.points: Input should be a v"),
        (["original_size", "macs"], float("inf"), "original_size.macs: Input should be a"),
        (["slim_size", "parameters"], True, "slim_size.parameters: Input should be a valid int"),
        (["artefacts"], [], "artefacts: Input should be an object"),
        (["latency"], [], "it holds no speed-up on onnxruntime-cpu at batch 1"),
        (["environment"], None, "environment: Input should be an object"),
    ],
)
def test_a_damaged_report_is_refused(path, value, why, plain, tmp_path):
    place = plain
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(InputError, match=r"report\.json of an earlier run") as caught:
        read(plain, tmp_path)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "5", "null", "{}", '{"schema_version": 2}', "[" * 100_000, "\x00"]
)
def test_other_files_are_refused(text, tmp_path):
    with pytest.raises(InputError, match="cannot be read as one"):
        read(text, tmp_path)


def test_no_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(InputError, match="name that file"):
            read_baseline(Options(baseline=str(path)), "accuracy")


def test_a_baseline_of_another_score_is_refused(plain, tmp_path):
    with pytest.raises(InputError, match="measures the accuracy, this run the agreement"):
        read(plain, tmp_path, quantity="agreement")


def test_a_renamed_model_and_other_images_are_noted(plain, report, tmp_path):
    plain["source"], plain["source_sha256"] = "model_v2.pt", "another"
    plain["confirmation_drop"]["images"] += 1
    plain["environment"] = {"cpu": report.environment.get("cpu")}
    notes = baseline_notes(report, read(plain, tmp_path))
    assert any("was another file: new weights?" in note for note in notes)
    assert any("measured on 1,001 images, this run's on 1,000" in note for note in notes)


def test_a_baseline_of_another_network_is_refused_by_its_sizes(plain, tmp_path):
    network = nn.Conv2d(3, 4, 1)
    loaded, example = LoadedModel(network, "model.pt", None), torch.zeros(1, 3, 5, 5)
    baseline = read(plain, tmp_path)
    with pytest.raises(InputError, match=r"11,689,512 parameters .* this one has 16 and 300"):
        require_same_network(baseline, loaded, example)
    require_same_network(
        dataclasses.replace(baseline, original_size=Size(16, 12, 300)), loaded, example
    )
    require_same_network(None, loaded, example)
