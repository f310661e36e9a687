"""A run as JUnit XML, which every build server shows: one test case for each thing asked of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from slimnet.records import Report
from slimnet.report.goal_text import budget_sentence, goal_sentence
from slimnet.report.goals import budget_missed

NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
WHAT_FAILED = {2: "input", 4: "proof"}
Case = tuple[str, str, str]
"""Its name, what kind of trouble there is ("": none), and what was seen."""


def junit_xml(report: Report) -> str:
    """Return one case a goal, one for the budget, one for the proof; the report stays.

    The proof holds wherever there is a report: without it, nothing is written.
    """
    cases = [
        (goal.name.replace("_", "-"), "" if goal.met else "failure", goal_sentence(goal))
        for goal in report.goals
    ]
    budget = "failure" if budget_missed(report) else ""
    parity = report.masked_slim
    proof = (
        f"masked and slim network differ by {parity.relative_error:.1e} of the output's scale, "
        f"{parity.tolerance:.0e} allowed"
    )
    cases += [("budget", budget, budget_sentence(report)), ("proof", "", proof)]
    return _document(cases, sum(report.seconds.values()))


def junit_error(message: str, exit_code: int) -> str:
    """Return a document of one case, in error: the run ended without a result."""
    return _document([(WHAT_FAILED.get(exit_code, "run"), "error", message)], 0.0)


def _document(cases: Sequence[Case], seconds: float) -> str:
    counts = {f"{kind}s": str(sum(c[1] == kind for c in cases)) for kind in ("failure", "error")}
    about = {"name": "slimnet", "tests": str(len(cases)), **counts, "time": f"{seconds:.3f}"}
    root = ElementTree.Element("testsuites", about)
    suite = ElementTree.SubElement(root, "testsuite", about)
    for name, trouble, seen in cases:
        case = ElementTree.SubElement(suite, "testcase", classname="slimnet", name=_clean(name))
        if trouble:
            ElementTree.SubElement(case, trouble, message=_clean(seen)).text = _clean(seen)
        else:
            ElementTree.SubElement(case, "system-out").text = _clean(seen)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _clean(text: str) -> str:
    """Return the text without characters that no XML document may hold."""
    return NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)
