"""The classes that lost most, in sentences and rows."""

from collections.abc import Sequence

from slimnet.options import Options
from slimnet.records import ClassDrop, Report
from slimnet.report.numbers import points

FACTOR = 2  # a class that lost more than so many budgets is named in one line
CLASS_HEADS = ("class", "images", "recall, original", "recall, slim", "change in points")
TOGETHER = "95 % for all classes together"


def class_notes(found: Sequence[ClassDrop], options: Options) -> tuple[str, ...]:
    """Return one sentence on classes that surely lost something, and more than twice the budget."""
    many = [
        one
        for one in found
        if one.drop.points > FACTOR * options.max_drop and one.drop.lower_points > 0
    ]
    if not many:
        return ()
    more = f"; {len(many) - 1} more class{'es' * (len(many) > 2)} did too" * (len(many) > 1)
    advice = "" if options.score != "accuracy" else (
        "; --score balanced-accuracy lets every class count alike"
    )  # fmt: skip
    worst = max(many, key=lambda one: one.drop.points)
    return (
        f"class {worst.label} lost more than twice the budget of {options.max_drop:g} points: "
        f"{_in_words(worst)}{more}{advice}",
    )


def class_lines(report: Report) -> list[str]:
    """Return a sentence on the class that lost most; none if no class lost more than it won."""
    losers = [one for one in report.class_drops if one.drop.points > 0]
    return [f"Class {one.label} lost most: {_in_words(one)}." for one in losers[:1]]


def _in_words(one: ClassDrop) -> str:
    drop = one.drop
    return (
        f"its recall went from {drop.original_percent:.1f} to {drop.slim_percent:.1f} % on "
        f"{drop.images:,} image{'s' * (drop.images > 1)} ({_interval(one)}, {TOGETHER})"
    )


def _interval(one: ClassDrop) -> str:
    drop = one.drop
    return (
        f"{points(drop.points)} points, interval {points(drop.upper_points)} to "
        f"{points(drop.lower_points)}"
    )


def class_rows(report: Report) -> list[tuple[str, ...]]:
    """Return the classes that lost most, the surest loss first; does not change the report."""
    return [
        (
            str(one.label),
            f"{one.drop.images:,}",
            f"{one.drop.original_percent:.2f} %",
            f"{one.drop.slim_percent:.2f} %",
            f"{points(one.drop.points)} [{points(one.drop.upper_points)}, "
            f"{points(one.drop.lower_points)}]",
        )
        for one in report.class_drops
        if one.drop.points > 0
    ]
