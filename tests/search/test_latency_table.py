"""The table of layer times: recorded by a search, and gone by in another one, which times none."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

from slimnet.errors import InputError
from slimnet.groups.cut import slim_copy
from slimnet.groups.group import plan_for
from slimnet.options import Options
from slimnet.records.search import LayerProfile, MeasuredTable
from slimnet.report.json_report import as_plain
from slimnet.search import objective
from slimnet.search.journal import Journal, fingerprint
from slimnet.search.latency_table import LatencyTable, read_latency_table
from slimnet.search.objective import choose_objective
from slimnet.search.search import search
from slimnet.tasks.classification import CLASSIFICATION

PAYING = (2, 4, 6, 8)
WIDTHS = {"0": (1, 8), "3": (8, 8), "8": (32, 4)}
OPTIONS = {"max_drop": 30, "confidence": 0.5, "oracle_k": 4}


def time_layers(network):
    times = {name: network[int(name)].out_channels ** 1.5 / 3 for name in ("0", "3")}
    return {**times, "": 0.1}


def never(*_):
    raise AssertionError("this was measured before")


def written(table, file):
    plain = None if table is None else as_plain(table)
    file.write_text(json.dumps({"notes": [], "trajectory": {"steps": [], "latency_table": plain}}))
    return str(file)


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(objective, "measure_paying_widths", lambda *_: PAYING)
    monkeypatch.setattr(objective, "narrow_widths", lambda widths: (widths, widths))


def searched(found, timer, tmp_path=None, **changes):
    model, splits, groups = found
    journal = tmp_path and tmp_path / "journal"
    options = Options(**{**OPTIONS, **changes})
    return search(model, groups, splits, options, time_layers=timer, journal_file=journal)


def without_clock(trajectory):
    steps = tuple(dataclasses.replace(step, seconds=0) for step in trajectory.steps)
    return dataclasses.replace(trajectory, steps=steps, notes=())


def test_a_search_by_a_reports_table_is_the_same_search(found, narrow, monkeypatch, tmp_path):
    first, weights = searched(found, time_layers)
    table = first.latency_table
    assert first.kept_steps
    assert table.paying_widths == PAYING
    assert "threads 1, onnxruntime" in table.measured_on
    assert len(table.profiles) == first.predicted.corrections + 1 > 1
    assert table.profiles[0] == LayerProfile(WIDTHS, time_layers(found[0]))
    file = written(table, tmp_path / "report.json")
    monkeypatch.setattr(objective, "measure_paying_widths", never)
    again, same = searched(found, never, tmp_path, latency_table=file)
    assert without_clock(again) == without_clock(first)
    assert "measured on onnxruntime-cpu, threads 1" in again.notes[-1]
    assert all(torch.equal(x, same.state_dict()[name]) for name, x in weights.state_dict().items())
    assert b'"layer times"' not in (tmp_path / "journal").read_bytes()
    without_timer, _ = searched(found, None, latency_table=file)
    assert without_timer.plan == first.plan


def test_the_plan_follows_the_table(found, narrow, tmp_path):
    only_the_head = LayerProfile(WIDTHS, {"0": 0.0, "3": 0.0, "8": 1.0})
    table = MeasuredTable("", PAYING, (only_the_head,))
    file = written(table, tmp_path / "report.json")
    assert {"0", "8"} <= set(searched(found, time_layers)[0].plan)
    plan = searched(found, never, latency_table=file)[0].plan
    assert "8" in plan
    assert "0" not in plan, "its channels save no time"


def test_other_objectives_have_no_table(found):
    assert searched(found, never, objective="params")[0].latency_table is None


def test_at_widths_without_a_profile_the_last_one_stays(found):
    model, _, groups = found
    quarter, half = (
        slim_copy(model, plan_for(groups, [torch.arange(count) for _ in groups]))
        for count in (4, 2)
    )
    profiles = LatencyTable(time_layers, model), LatencyTable(time_layers, quarter)
    given = MeasuredTable("a machine", PAYING, tuple(p.measured.profiles[0] for p in profiles))
    table = LatencyTable(None, model, given=given)
    assert table.measured == dataclasses.replace(given, profiles=given.profiles[:1])
    before = table.prediction(half)
    table.refresh(half)
    assert table.prediction(half) == before
    table.refresh(quarter)
    assert table.measured == given
    assert table.prediction(quarter).slim_ms == pytest.approx(sum(time_layers(quarter).values()))


def test_a_network_is_not_timed_twice_in_a_search(found):
    timed = []

    def counted(network):
        timed.append(network)
        return {"0": float(len(timed) == 1)}

    model, _, groups = found
    table = LatencyTable(counted, model)
    half = slim_copy(model, plan_for(groups, [torch.arange(4) for _ in groups]))
    table.refresh(half)
    table._profile(model)
    assert timed == [model, half]
    assert table.prediction(model).slim_ms == 1.0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "No such file"), ("", "JSON"), ("[" * 100_000, "JSON"), ("{}", "trajectory: Field"),
        ('{"trajectory": {"latency_table": null}}', r"trajectory.latency_table: Input"),
        ('{"trajectory": {"latency_table": {"measured_on": "", "paying_widths": [true], '
         '"profiles": []}}}', "paying_widths.0: Input"),
    ],
)  # fmt: skip
def test_a_file_without_a_table_is_refused_in_one_line(found, tmp_path, text, why):
    file = tmp_path / "report.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=f"of an earlier run with the objective.*{why}") as caught:
        read_latency_table(str(file), found[0])
    assert "\n" not in str(caught.value)


def test_a_table_of_another_network_is_refused(found, tmp_path):
    table = LatencyTable(lambda _: {"": 1.0}, nn.Linear(3, 2)).measured
    file = written(table, tmp_path / "report.json")
    assert read_latency_table(file, nn.Linear(3, 2)) == table
    for other in (nn.Linear(3, 4), nn.Sequential(nn.Linear(3, 2))):
        with pytest.raises(InputError, match=r"that of .* is of another network"):
            read_latency_table(file, other)
    with pytest.raises(InputError, match="is of another network"):
        searched(found, never, latency_table=file)


def test_rounding_by_itself_uses_the_tables_widths_too(found, narrow, monkeypatch, tmp_path):
    monkeypatch.setattr(objective, "measure_paying_widths", never)
    model, splits, groups = found
    given = MeasuredTable("", (8, 16), LatencyTable(time_layers, model).measured.profiles)
    options = Options(latency_table=written(given, tmp_path / "report.json"), round_to="auto")
    made = choose_objective(model, groups, splits.calibration.batches, options, None, Journal())
    assert "the widths that pay are 8, 16" in made.notes[0]
    assert made.table.measured == given


def test_a_journal_depends_on_what_the_table_holds(found, tmp_path):
    model, splits, _ = found
    quality = CLASSIFICATION.measure(model, splits.selection, 0.95)
    table = LatencyTable(time_layers, model).measured

    def key(table):
        options = Options(latency_table=written(table, tmp_path / "report.json"))
        return fingerprint(model, (), (), [splits.calibration], quality, options, CLASSIFICATION)

    before = key(table)
    assert key(dataclasses.replace(table, paying_widths=(8,))) != before
    assert key(table) == before
