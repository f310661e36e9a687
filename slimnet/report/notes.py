"""The notes of a report: reservations about what was measured, one sentence each."""

from collections.abc import Mapping

from slimnet.options import Options
from slimnet.records import (
    Confirmation,
    ConfirmationTest,
    Drop,
    PredictionCheck,
    Trajectory,
)
from slimnet.tasks import confirmable_points

NOTED_PREDICTION_ERROR_PERCENT = 20  # a guess: at half of it, noise of the timings would show
NOTED_GAIN_POINTS = 1  # a guess: a smaller rise of the score may be chance
NOTED_LOSS_FACTOR = 1.1  # a guess: a smaller rise of the loss is usual after a removal
WITHOUT_LABELS = (
    "there were no labels: the agreement is how often a network answers as the original does; the "
    "drop is how often slim and original disagree, and the accuracy dropped by no more than that"
)


def prediction_notes(check: PredictionCheck | None) -> tuple[str, ...]:
    """Return a note if the predicted speed-up was far from the measured one."""
    if check is None or abs(check.off_percent) <= NOTED_PREDICTION_ERROR_PERCENT:
        return ()
    times = {0: "never corrected", 1: "corrected once"}
    corrected = times.get(check.corrections, f"corrected {check.corrections} times")
    return (
        f"the predicted speed-up is more than {NOTED_PREDICTION_ERROR_PERCENT} % off: the network "
        "did not save the time that its layers were predicted to save; the table of layer times "
        f"was {corrected} from a profile of the whole network",
    )


def drop_notes(
    drops: Mapping[str, Drop], confirmation: Confirmation | None, options: Options
) -> tuple[str, ...]:
    """Return the reservations about the drop, one sentence each."""
    notes = []
    if options.labels == "none":
        notes.append(WITHOUT_LABELS)
    test = drops.get("test")
    if test is not None and test.points > options.max_drop:
        notes.append(
            f"on the test images, which decided and confirmed nothing, the drop is "
            f"{test.points:.2f} points, more than the {options.max_drop:g} allowed"
        )
    if confirmation is None:
        notes.append(
            "nothing was confirmed (confidence 0.5): the search looked at the selection images "
            f"again and again, and the true drop is most often larger than the "
            f"{drops['selection'].points:.2f} points estimated on them"
        )
        return tuple(notes)
    if "approximate" in confirmation.test:
        notes.append(f"the confirmation is {confirmation.test}")
    if confirmation.confirmed is not None and not confirmation.tests[-1].confirmed:
        notes.append(_next_state_note(confirmation.tests[-1], options))
    if confirmation.earlier_runs:
        count = confirmation.earlier_runs
        runs = "1 earlier run" if count == 1 else f"{count} earlier runs"
        notes.append(
            f"the folder's history knows of {runs} on the same confirmation images: each "
            "run keeps its promise alone, but whoever picks the best of many runs does not; draw "
            "new images from time to time"
        )
    return tuple(notes)


def _next_state_note(tested: ConfirmationTest, options: Options) -> str:
    """Return what more images might have allowed."""
    text = (
        f"the next state, without {tested.parameters_removed_percent:.1f} % of the parameters, "
        f"drops {tested.drop.points:.2f} points on the confirmation images and could not be "
        f"confirmed (p = {tested.p_value:.2f})"
    )
    more = tested.drop.points < options.max_drop
    return text + ": more images might have allowed it" * more


def power_note(confirmation: Confirmation, options: Options) -> str:
    """Return how much the confirmation images allow, before the search."""
    images = confirmation.images
    more = max(1000, 1000 * round(3 * images / 1000))
    then = confirmable_points(images + more, options.max_drop, options.confidence)
    allowed = f"{more:,} more images would allow about {then:.1f}"
    if options.score != "accuracy":  # then it goes by the images of the rare classes
        allowed = "More images of the rarest classes would allow more"
    return (
        f"note: {images:,} images for confirmation; networks that truly lose more than about "
        f"{confirmation.confirmable_points:.1f} points will mostly not be confirmed. {allowed}"
    )


def score_notes(selection: Drop, trajectory: Trajectory) -> tuple[str, ...]:
    """Return a note if score and loss of the user's own task contradict one another."""
    losses = [step.calibration_loss for step in trajectory.steps if not step.taken_back]
    loss_rose = len(losses) > 1 and losses[-1] > NOTED_LOSS_FACTOR * losses[0]
    score_rose = selection.points < -NOTED_GAIN_POINTS
    if "Tango" in selection.bounds or not (score_rose and loss_rose):
        return ()
    return (
        f"the {selection.quantity} rose by {-selection.points:.2f} points while the loss rose too: "
        "if lower is better, change its sign, or every result will seem to be within the budget",
    )


def resumption_notes(trajectory: Trajectory) -> tuple[str, ...]:
    """Return a note if the search was interrupted and resumed."""
    if not trajectory.resumed_after_step:
        return ()
    return (
        f"the search was interrupted and resumed after step {trajectory.resumed_after_step}; "
        "the seconds of the stages are those of the last run, the seconds of a step those of the "
        "run that made it",
    )
