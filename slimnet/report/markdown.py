"""The verdict, the goals and the table as GitHub-flavoured Markdown, for a pipeline's summary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from slimnet.records import Report
from slimnet.report.goal_text import GOAL_HEADS, goal_rows
from slimnet.report.summary import verdict_line
from slimnet.report.text import result_rows

SIGNS = re.compile(r"([\\`*_{}\[\]<>#|~$@])")


def markdown_summary(report: Report) -> str:
    """Return a section to be appended to a Markdown file; does not change the report."""
    goals = goal_rows(report)
    parts = [
        f"### slimnet: {_text(report.source)}",
        _text(verdict_line(report)),
        _table(GOAL_HEADS, goals) if goals else "",
        _table(("", "original", "slim", "change"), result_rows(report)),
        "\n".join(f"- {_text(note)}" for note in report.notes),
    ]
    return "\n" + "\n\n".join(part for part in parts if part) + "\n"


def markdown_error(message: str, exit_code: int) -> str:
    """Return a section for a run that ended without a result."""
    return f"\n### slimnet: no result (exit code {exit_code})\n\n{_text(message)}\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text: str) -> str:
    """Return the text on one line, each sign that Markdown or HTML would act on escaped."""
    return SIGNS.sub(r"\\\1", " ".join(text.split()))
