"""Tables in a pipe: plain, whole, and on a narrow terminal nothing is cut."""

import io

from rich.console import Console
from rich.table import Table

from slimnet.cli import outputs as printing
from slimnet.cli.outputs import print_parts
from slimnet.report.tables import changes_table

ROW = ("onnxruntime-cpu, 1 thread, batch 32", "100.25 ms", "120.50 ms", "÷ 2.47 [2.40, 2.50]")


def test_a_pipe_gets_plain_text_of_any_width(capsys):
    print_parts([changes_table([[ROW]]), "a [line] " * 30])
    told = capsys.readouterr().out
    assert not set(told) & set("─│┃━")
    row, line = told.splitlines()[-2:]
    assert row.split("  ")[0].strip() == ROW[0]
    assert line == "a [line] " * 30
    print_parts(["elsewhere"], stderr=True)
    assert capsys.readouterr() == ("", "elsewhere\n")


def test_a_terminal_keeps_the_lines_of_a_table(monkeypatch):
    shown = io.StringIO()

    def terminal(**_):
        return Console(file=shown, force_terminal=True, width=80, color_system=None)

    monkeypatch.setattr(printing, "Console", terminal)
    print_parts([Table("what")])
    assert set(shown.getvalue()) & set("─━")


def test_a_narrow_terminal_cuts_no_figure():
    shown = io.StringIO()
    Console(file=shown, width=30).print(changes_table([[ROW]]))
    assert "…" not in shown.getvalue()
    letters = "".join(c for c in shown.getvalue() if c.isalnum())
    assert sorted(c for text in (*ROW, "what", "original", "slim", "change") for c in text
                  if c.isalnum()) == sorted(letters)  # fmt: skip
