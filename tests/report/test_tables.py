import io
from pathlib import Path

from rich.console import Console

from slimnet.report.tables import result_table

GOLDEN = Path(__file__).parent / "result_table.txt"


def plain(table, width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def test_table_is_the_golden_file(report):
    assert plain(result_table(report)) == GOLDEN.read_text(encoding="utf-8")


def test_table_has_a_row_a_quantity(report):
    table = result_table(report)
    assert [column.header for column in table.columns] == ["what", "original", "slim", "change"]
    assert table.row_count == 2 + 4 + len(report.latency)
