"""The command line in a report does the same again."""

from __future__ import annotations

import shlex

import pytest

from slimnet import cli
from slimnet.report import command_line
from slimnet.settings import Settings

CHANGED = (
    {},
    {"repair": False, "augment": False},
    {"trust_pickle": True, "int8": True},
    {"mean": (-0.5, 1 / 3, 0.1), "keep": ("layer 1.*", "fc"), "latency_batch": (4,)},
    {"max_drop": 0.1, "seed": 2**40, "baseline": "old report.json", "max_regression": 1.5},
)


class Told(Exception):
    """What the command was understood as."""


@pytest.mark.parametrize("dials", CHANGED)
def test_the_command_is_understood_as_the_settings_that_made_it(dials, tmp_path, monkeypatch):
    settings, heard = Settings(**dials), []

    def hear(model, data, max_drop, *, out, settings, progress):
        heard.extend((model, data, max_drop, out, settings))
        raise Told

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("slimnet.cli.compress.compress_network", hear)
    words = shlex.split(command_line("my model.pt", "data ü.npz", "out", settings))
    cli.run(words[1:])
    assert heard == ["my model.pt", "data ü.npz", settings.max_drop, "out", settings]
