"""A comparison in words, in numbers and as a picture."""

from __future__ import annotations

import dataclasses
import io
import json
from xml.etree import ElementTree

import pytest
from rich.console import Console

from slimnet.errors import InputError
from slimnet.records import (
    Agreement,
    Comparison,
    MeasuredGroup,
    MetricAgreement,
    RandomAgreement,
)
from slimnet.report import (
    check_comparison_folder,
    comparison_json,
    comparison_lines,
    comparison_tables,
    duration,
    save_comparison,
)

NONE = Agreement(None, None)


@pytest.fixture
def comparison():
    layers = {"a": Agreement(-0.5, -0.4), "b": Agreement(0.7, 0.6)}
    worst = MetricAgreement(
        "l1_weight", Agreement(-0.25, -0.2), (-0.5, 0.001), layers, Agreement(0.1, 0.1), 5.0, 0.04
    )
    better = {"a": Agreement(0.9, 0.8), "b": NONE}
    best = MetricAgreement(
        "taylor_second_order", Agreement(0.8, 0.7), (0.7, 0.9), better, Agreement(0.9, 0.8), 50.0, 2
    )
    flat = MetricAgreement("apoz", NONE, None, {"a": NONE, "b": NONE}, NONE, 10.0, 1.0)
    return Comparison(
        schema_version=1, slimnet_version="0.1.0", source="/home/me/<net>.pt", source_sha256=None,
        data="data.npz", settings={"seed": 0}, repaired=False, images=1_024, loss_nats=0.5,
        units=40, units_measured=20, lowest=2, metrics=(worst, best, flat),
        left_out={"mutual_information": "it needs classes"},
        random=RandomAgreement(1_000, 0.001, (-0.4, 0.4), (-0.5, 0.5), 10.0, (0.0, 50.0)),
        oracle_halves=Agreement(0.95, 0.9),
        groups={
            "a": MeasuredGroup(("conv1", "[red].conv"), 16, {0: 0.25, 3: None}),
            "b": MeasuredGroup(("conv2",), 2, {0: -0.1, 1: 0.0}),
        },
        oracle_seconds=12.3, environment={"torch": "2"}, seconds=20.0,
    )  # fmt: skip


def printed(comparison, width):
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    for table in comparison_tables(comparison):
        table.box = None
        console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_rows_stand_in_the_order_of_agreement(comparison):
    lines = printed(comparison, width=200)
    rows = [line.split("  ")[0] for line in lines]
    assert rows[:6] == [
        "metric", "taylor_second_order", "l1_weight", "apoz", "random order",
        "oracle, half by half",
    ]  # fmt: skip
    assert lines[1].split() == [
        "taylor_second_order", "0.80", "[0.70,", "0.90]", "0.70", "0.90", "50", "%", "2.0",
    ]  # fmt: skip
    assert lines[2].split()[1:4] == ["−0.25", "[−0.50,", "0.00]"]
    assert lines[3].split()[1:4] == ["–", "–", "–"]
    assert lines[-2].split() == [
        "conv1,", "[red].conv", "2", "of", "16", "taylor_second_order", "0.90",
    ]  # fmt: skip
    assert lines[-1].split() == ["conv2", "2", "l1_weight", "0.70"]


def test_a_terminal_of_80_columns_is_wide_enough(comparison):
    lines = printed(comparison, width=80)
    assert max(map(len, lines)) <= 80
    assert any("[0.70, 0.90]" in line and "taylor_second_order" in line for line in lines)


def test_lines_say_what_the_numbers_are_worth(comparison):
    text = "\n".join(comparison_lines(comparison))
    for words in ("tau-b: Kendall's", "20 of 40 units", "not repaired", "bootstrap",
                  "1,024 calibration images", "1,000 orders",
                  "Left out: mutual_information: it needs classes."):  # fmt: skip
        assert words in text
    repaired = dataclasses.replace(comparison, repaired=True)
    assert "not repaired" not in comparison_lines(repaired)[0]


def test_json_and_plot_are_written_and_can_be_written_again(comparison, tmp_path):
    folder = tmp_path / "new" / "comparison"
    for _ in range(2):
        check_comparison_folder(folder)
        save_comparison(comparison, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["compare.json", "compare.svg"]
    content = json.loads((folder / "compare.json").read_text())
    assert content == json.loads(comparison_json(comparison))
    assert content["metrics"][1]["layers"]["a"] == {"spearman": 0.9, "kendall": 0.8}
    assert content["groups"]["a"]["sensitivities_nats"] == {"0": 0.25, "3": None}


def test_the_plot_says_in_words_what_it_shows(comparison, tmp_path):
    save_comparison(comparison, tmp_path)
    text = (tmp_path / "compare.svg").read_text()
    root = ElementTree.fromstring(text)
    name = "{http://www.w3.org/2000/svg}"
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "title desc"
    assert root.find(f"{name}title").text.endswith(", <net>.pt")
    told = root.find(f"{name}desc").text
    for words in ("taylor_second_order 0.80 [0.70, 0.90], by layer 0.90", "l1_weight −0.25",
                  "random orders [−0.40, 0.40]", "0.95"):  # fmt: skip
        assert words in told
    for words in ("one layer", "all units, 95 %", "random orders, 95 %", "apoz", "Spearman"):
        assert words in text
    save_comparison(comparison, tmp_path)
    assert (tmp_path / "compare.svg").read_text() == text


def test_a_folder_of_something_else_is_refused(comparison, tmp_path):
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(InputError, match="new, empty or an earlier comparison"):
        check_comparison_folder(tmp_path)
    with pytest.raises(InputError, match="is a file: choose another name"):
        check_comparison_folder(tmp_path / "report.json")
    with pytest.raises(InputError, match="must be a writable folder"):
        check_comparison_folder(tmp_path / "report.json" / "below")


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.1, "1 s"), (42.4, "42 s"), (720, "12 min"), (12_600, "3.5 h")]
)
def test_durations(seconds, told):
    assert duration(seconds) == told
