"""What is told while the full oracle works, without a terminal."""

from __future__ import annotations

import pytest

from slimnet.records import OracleProgress
from slimnet.report import ComparisonProgress


def test_lines_are_held_until_the_time_is_known(capsys):
    with ComparisonProgress() as progress:
        progress("loading")
        assert capsys.readouterr().err == ""
        progress("removing 1,024 units alone, on 9 images: about 3 min")
        assert capsys.readouterr().err.splitlines() == [
            "loading", "removing 1,024 units alone, on 9 images: about 3 min",
        ]  # fmt: skip
        progress(OracleProgress(2.5, 1_024))
        progress("comparing the orders")
    assert capsys.readouterr().err == "comparing the orders\n"


def test_an_error_stands_alone(capsys):
    def fail():
        with ComparisonProgress() as progress:
            progress("loading")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert capsys.readouterr() == ("", "")
