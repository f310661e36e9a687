"""The command line in a report does the same again; a comparison in words and as a picture."""

from __future__ import annotations

import dataclasses
import io
import json
import shlex
from xml.etree import ElementTree

import pytest
from rich.console import Console

import slimnet
from slimnet import cli
from slimnet.errors import InputError
from slimnet.options import Options
from slimnet.report.commands import (
    check_comparison_folder,
    command_line,
    comparison_lines,
    comparison_tables,
    save_comparison,
)
from slimnet.report.json_report import record_json

CHANGED = (
    {},
    {"repair": False, "augment": False},
    {"trust_pickle": True, "int8": True},
    {"mean": (-0.5, 1 / 3, 0.1), "keep": ("layer 1.*", "fc"), "latency_batch": (4,)},
    {"max_drop": 0.1, "seed": 2**40, "baseline": "old report.json", "max_regression": 1.5},
)


class Told(Exception):
    """What the command was understood as."""


@pytest.mark.parametrize("changes", CHANGED)
def test_the_command_is_understood_as_the_settings_that_made_it(changes, tmp_path, monkeypatch):
    options, heard = Options(**changes), []

    def hear(model, data, max_drop, *, out, options, progress):
        heard.extend((model, data, max_drop, out, options))
        raise Told

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slimnet, "compress", hear)
    words = shlex.split(command_line("my model.pt", "data ü.npz", "out", options))
    cli.run(words[1:])
    assert heard == ["my model.pt", "data ü.npz", options.max_drop, "out", options]


def printed(comparison, width):
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    for table in comparison_tables(comparison):
        table.box = None
        console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_rows_stand_in_the_order_of_agreement(comparison):
    lines = printed(comparison, width=200)
    rows = [line.split("  ")[0] for line in lines]
    assert rows[:5] == [
        "metric", "taylor_second_order", "l1_weight", "apoz", "oracle, half by half",
    ]  # fmt: skip
    assert lines[1].split() == [
        "taylor_second_order", "0.80", "0.70", "0.90", "50", "%", "2.0",
    ]  # fmt: skip
    assert lines[2].split()[1:3] == ["−0.25", "−0.20"]
    assert lines[3].split()[1:4] == ["–", "–", "–"]
    assert lines[-2].split() == [
        "conv1,", "[red].conv", "2", "of", "16", "taylor_second_order", "0.90",
    ]  # fmt: skip
    assert lines[-1].split() == ["conv2", "2", "l1_weight", "0.70"]


def test_a_terminal_of_80_columns_is_wide_enough(comparison):
    lines = printed(comparison, width=80)
    assert max(map(len, lines)) <= 80
    assert any("0.80" in line and "taylor_second_order" in line for line in lines)


def test_lines_say_what_the_numbers_are_worth(comparison):
    text = "\n".join(comparison_lines(comparison))
    for words in ("tau-b: Kendall's", "20 of 40 units", "not repaired",
                  "1,024 calibration images",
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
    assert content == json.loads(record_json(comparison))
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
    for words in ("taylor_second_order 0.80, by layer 0.90", "l1_weight −0.25", "0.95"):
        assert words in told
    for words in ("one layer", "all units", "oracle, half by half", "apoz", "Spearman"):
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
