"""What the report says of the data, and what a reader must be warned of."""

from __future__ import annotations

from typing import Any

from slimnet.records import Drop, PredictionCheck, Splits, Trajectory
from slimnet.report.prediction import prediction_notes
from slimnet.settings import Settings

WITHOUT_LABELS = (
    "there were no labels: agreement is how often a network answers as the original does; the "
    "drop is how often slim and original disagree, and the accuracy dropped by no more than that"
)


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
    if settings.labels == "none":
        notes.append(WITHOUT_LABELS)
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


def score_notes(selection: Drop, trajectory: Trajectory) -> tuple[str, ...]:
    """Return, where score and loss of the user's own task contradict one another, that they do."""
    losses = [step.calibration_loss for step in trajectory.steps if not step.taken_back]
    rises = selection.points < -1 and len(losses) > 1 and losses[-1] > 1.1 * losses[0]
    if "Student" not in selection.bounds or not rises:
        return ()
    return (
        f"the {selection.quantity} rose by {-selection.points:.2f} points while the loss rose too: "
        "if a lower one is better, turn its sign, or everything will seem to be within the budget",
    )


def resumption_notes(trajectory: Trajectory) -> tuple[str, ...]:
    """Return, where the search went on from an interrupted one, what its seconds leave out."""
    if not trajectory.resumed_after_step:
        return ()
    return (
        f"the search was interrupted and resumed after step {trajectory.resumed_after_step}; "
        "the seconds of the stages are those of the last run, those of each step of its own run",
    )
