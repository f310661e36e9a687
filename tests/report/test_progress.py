"""Progress without a terminal."""

from __future__ import annotations

import pytest

from slimnet.records.search import OracleProgress
from slimnet.report.progress import ComparisonProgress, TerminalProgress


def test_lines_are_held_until_the_oracle_works(capsys):
    with ComparisonProgress() as progress:
        progress("loading")
        assert capsys.readouterr().err == ""
        progress("removing 1,024 units alone, on 9 images")
        progress(OracleProgress(2.5, 1_024))
        assert capsys.readouterr().err.splitlines() == [
            "loading", "removing 1,024 units alone, on 9 images",
        ]  # fmt: skip
        progress("comparing the orders")
    assert capsys.readouterr().err == "comparing the orders\n"


def test_a_note_is_no_stage(capsys, report):
    with TerminalProgress(5.0) as progress:
        progress("loading")
        progress("note: 300 images for confirmation")
        assert capsys.readouterr().err == ""
        progress(report.trajectory.steps[0])
        assert capsys.readouterr().err == "loading ...\nnote: 300 images for confirmation\n"


def test_an_error_stands_alone(capsys):
    def fail():
        with ComparisonProgress() as progress:
            progress("loading")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert capsys.readouterr() == ("", "")
