"""The help of every sub-command fits a terminal, shows an example, and tells units and defaults."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from importlib.metadata import version
from typing import get_args, get_type_hints

import pytest
import typer

from slimnet import cli
from slimnet.settings import Settings

COMMANDS = typer.main.get_command(cli.app).commands
# numbers that have no unit, and the ones that are in those of the pixels
PURE = {
    "mean", "std", "scale", "learning_rate", "weight_decay", "norm_scale_l1", "seed", "opset",
}  # fmt: skip
TAKEN = {
    info.callback.__name__: {
        name: (get_args(hint.__origin__) or (hint.__origin__,), hint.__metadata__[0].help)
        for name, hint in get_type_hints(info.callback, include_extras=True).items()
        if name != "return"
    }
    for info in cli.app.registered_commands
}
KINDS = {dial.name: dial.metadata["kind"] for dial in fields(Settings)}
PARAMETERS = [(command, name) for command, taken in TAKEN.items() for name in taken]


def page(words, monkeypatch, capsys) -> str:
    for name in ("FORCE_COLOR", "TERMINAL_WIDTH", "TTY_COMPATIBLE", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(words) == 0
    told = capsys.readouterr()
    assert told.err == ""
    return told.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns_and_shows_an_example_that_is_one(name, monkeypatch, capsys):
    text = page([name, "--help"], monkeypatch, capsys)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    (example,) = re.findall(r"^ Example: slimnet (.+)$", text, re.MULTILINE)
    words = shlex.split(example)
    assert words[0] == name
    COMMANDS[name].make_context(name, words[1:])  # raises where it takes no such words


@pytest.mark.parametrize(("command", "name"), PARAMETERS)
def test_every_option_tells_its_default_and_every_number_its_unit(command, name):
    kinds, told = TAKEN[command][name]
    assert re.search(r"default: \S+[^()]*\)$|not given", told, re.IGNORECASE)
    if {*kinds, KINDS.get(name)} & {int, float} and name not in PURE:
        assert "(unit: " in told


def test_a_dial_that_means_something_else_is_told_so():
    assert TAKEN["compare"]["repair"][1].endswith("(default: off)")
    assert TAKEN["compare"]["metrics"][1].endswith("(default: all)")
    assert TAKEN["compress"]["repair"][1].endswith("(default: on)")


def test_the_version_is_that_of_the_package(monkeypatch, capsys):
    assert page(["--version"], monkeypatch, capsys) == f"slimnet {version('slimnet')}\n"
    assert "--version" in page(["--help"], monkeypatch, capsys)
