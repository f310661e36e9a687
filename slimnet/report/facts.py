"""What the report says of the data, and what a reader must be warned of."""

from __future__ import annotations

from typing import Any

from slimnet.records import Drop, PredictionCheck, Splits
from slimnet.report.prediction import prediction_notes
from slimnet.settings import Settings


def data_summary(splits: Splits) -> dict[str, Any]:
    """Return where the images came from, how many each split got, and their preprocessing."""
    parts = (splits.calibration, splits.selection, splits.test)
    return {
        "description": splits.description,
        "images": {part.name: part.images for part in parts},
        "preprocessing": dict(splits.preprocessing),
    }


def warnings_for(
    selection: Drop, test: Drop, settings: Settings, prediction: PredictionCheck | None = None
) -> tuple[str, ...]:
    """Return what qualifies the result, one sentence each."""
    notes = []
    if test.points > settings.max_drop:
        notes.append(
            f"on the test split, which nothing was tuned on, the drop is {test.points:.2f} points, "
            f"more than the {settings.max_drop:g} allowed on the selection split"
        )
    if settings.confidence == 0.5:
        notes.append(
            "the budget was judged by the plain estimate (confidence 0.5): chance alone can put "
            f"the true drop well beside the {selection.points:.2f} points measured"
        )
    elif "Student" in selection.bounds:
        notes.append(
            f"the bounds of the {selection.quantity} are {selection.bounds}: they take the "
            "batches' drops to be about normal, and few batches make them wide"
        )
    return (*notes, *prediction_notes(prediction))
