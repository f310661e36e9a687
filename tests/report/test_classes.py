from dataclasses import replace

import pytest

from slimnet.options import Options
from slimnet.records import ClassDrop, Drop
from slimnet.report.classes import class_lines, class_notes, class_rows
from slimnet.report.html import html_page
from slimnet.report.json_report import as_plain
from slimnet.report.summary import summary_lines


def lost(label, points, lower, images=50):
    return ClassDrop(label, Drop(90, 90 - points, points, lower, 70, 0.975, images, "recall"))


@pytest.mark.parametrize(
    ("points", "lower", "noted"),
    [(48, 30, True), (10.1, 0.5, True), (10, 5, False), (48, -2, False), (-3, -9, False)],
)
def test_a_class_is_noted_that_surely_lost_something_and_more_than_twice_the_budget(
    points, lower, noted
):
    notes = class_notes([lost(1, points, lower), lost(0, 1, 0.5)], Options(max_drop=5))
    assert bool(notes) is noted


def test_the_note_says_how_much_and_what_to_do():
    found = [lost(3, 12, 2), lost(1, 48, 30), lost(0, 11, 1), lost(2, 1, 0.5)]
    (note,) = class_notes(found, Options(max_drop=5))
    assert note == (
        "class 1 lost more than twice the budget of 5 points: its recall went from 90.0 to 42.0 % "
        "on 50 images (−48.00 points, interval −70.00 to −30.00, 95 % for all classes together); "
        "2 more classes did too; --score balanced-accuracy lets every class count alike"
    )
    (note,) = class_notes(found[1:2], Options(max_drop=5, score="balanced-accuracy"))
    assert note.endswith("together)")


def test_every_output_shows_the_classes_that_lost(report):
    assert class_lines(report) == class_rows(report) == []
    shown = replace(report, class_drops=(lost(7, 48, 30), lost(2, 1, -1), lost(0, -1, -3)))
    assert [row[0] for row in class_rows(shown)] == ["7", "2"]
    assert "Class 7 lost most: its recall went from 90.0 to 42.0 %" in "\n".join(
        summary_lines(shown)
    )
    page = html_page(shown)
    assert "Classes that lost most" in page
    assert "−48.00 [−70.00, −30.00]" in page
    assert "Classes that lost most" not in html_page(report)
    assert as_plain(shown)["class_drops"][0]["label"] == 7
