"""The result for a CI pipeline: Markdown for its summary, and JUnit XML."""

import re
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

from slimnet.records import Report
from slimnet.report.goals import (
    GOAL_HEADS,
    budget_missed,
    budget_sentence,
    goal_rows,
    goal_sentence,
)
from slimnet.report.summary import branch_lines, verdict_line
from slimnet.report.tables import result_rows

MARKDOWN_SIGNS = re.compile(r"([\\`*_{}\[\]<>#|~$@])")
NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
FAILED_CASES = {2: "input", 4: "proof"}  # by exit code
Case = tuple[str, str, str]
"""Its name, "failure", "error" or "" if it passed, and a sentence."""


def markdown_summary(report: Report) -> str:
    """Return a section for a Markdown file; does not change the report."""
    goals = goal_rows(report)
    parts = [
        f"### slimnet: {_text(report.source)}",
        _text(" ".join([verdict_line(report), *branch_lines(report)])),
        _table(GOAL_HEADS, goals) if goals else "",
        _table(("", "original", "slim", "change"), result_rows(report)),
        "\n".join(f"- {_text(note)}" for note in report.notes),
    ]
    return "\n" + "\n\n".join(part for part in parts if part) + "\n"


def markdown_error(message: str, exit_code: int) -> str:
    """Return a section on a run that ended without a result."""
    return f"\n### slimnet: no result (exit code {exit_code})\n\n{_text(message)}\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text: str) -> str:
    """Return the text on one line, with all signs of Markdown and HTML escaped."""
    return MARKDOWN_SIGNS.sub(r"\\\1", " ".join(text.split()))


def junit_xml(report: Report) -> str:
    """Return a case for each goal, for the budget and for the proof; the report is not changed.

    The proof always passes here: a run whose proof fails has no report.
    """
    cases = [
        (goal.name.replace("_", "-"), "" if goal.met else "failure", goal_sentence(goal))
        for goal in report.goals
    ]
    budget = "failure" if budget_missed(report) else ""
    parity = report.masked_slim
    proof = (
        f"masked and slim network differ by {parity.relative_error:.1e} of the output's scale; "
        f"{parity.tolerance:.0e} is allowed"
    )
    cases += [("budget", budget, budget_sentence(report)), ("proof", "", proof)]
    return _document(cases, sum(report.seconds.values()))


def junit_error(message: str, exit_code: int) -> str:
    """Return one case in error, for a run that ended without a result."""
    return _document([(FAILED_CASES.get(exit_code, "run"), "error", message)], 0.0)


def _document(cases: Sequence[Case], seconds: float) -> str:
    counts = {f"{kind}s": str(sum(c[1] == kind for c in cases)) for kind in ("failure", "error")}
    about = {"name": "slimnet", "tests": str(len(cases)), **counts, "time": f"{seconds:.3f}"}
    root = ElementTree.Element("testsuites", about)
    suite = ElementTree.SubElement(root, "testsuite", about)
    for name, problem, sentence in cases:
        case = ElementTree.SubElement(suite, "testcase", classname="slimnet", name=_clean(name))
        if problem:
            ElementTree.SubElement(case, problem, message=_clean(sentence)).text = _clean(sentence)
        else:
            ElementTree.SubElement(case, "system-out").text = _clean(sentence)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _clean(text: str) -> str:
    """Return the text with a sign in place of each character that XML cannot hold."""
    return NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)
