"""The command line in a report does the same again."""

from __future__ import annotations

import shlex

import pytest

import slimnet
from slimnet import cli
from slimnet.options import Options
from slimnet.report.commands import command_line

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
