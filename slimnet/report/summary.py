"""The result in sentences."""

from collections.abc import Iterator

from slimnet.records import FINE_TUNING, Int8, Latency, PredictionCheck, Report
from slimnet.report.classes import class_lines
from slimnet.report.goals import anything_removed, budget_sentence, outcome_lines
from slimnet.report.numbers import (
    MINUS,
    capitalized,
    file_size,
    is_share,
    level,
    points,
    share,
)
from slimnet.report.tables import relative_speed

MAX_BRANCHES = 8  # whose names stand in one sentence; report.html has all
NO_UNIT = "no unit"
NOTHING_CAN_GO = (
    "NOTHING CAN BE REMOVED from this network: no layer can lose a channel; report.html says why."
)


def summary_lines(report: Report) -> list[str]:
    """Return the outcome, what was removed and the notes; does not change the report."""
    removed = anything_removed(report)
    lines = outcome_lines(report)
    lines += _removed_lines(report) if removed else _nothing_removed_lines(report)
    if removed:
        lines += [_speed_line(entry) for entry in report.latency]
    if report.prediction is not None:
        lines.append(_prediction_line(report.prediction))
    if report.int8 is not None:
        lines.append(_int8_line(report.int8))
    return [*lines, *_image_lines(report), *(f"Note: {note}" for note in report.notes)]


def verdict_line(report: Report) -> str:
    """Return one line: whether goals and budget were met, and what was removed."""
    return " ".join(summary_lines(report)[: 1 + len(outcome_lines(report))])


def _removed_lines(report: Report) -> list[str]:
    before, after = report.original_size, report.slim_size
    shares = [f"{_share(before.parameters, after.parameters)} of the parameters"]
    if before.conv_weights:
        shares.append(f"{_share(before.conv_weights, after.conv_weights)} of the conv weights")
    if before.macs:
        shares.append(f"{_share(before.macs, after.macs)} of the MACs")
    *first, last = shares
    listed = f"{', '.join(first)} and {last}" if first else last
    return [
        f"Removed {listed}.",
        f"{capitalized(budget_sentence(report))}.",
        *_drop_lines(report),
        *class_lines(report),
        *branch_lines(report),
        *_end_of_search("The search ended because ", report),
        *_fine_tuning_lines(report),
        *_frozen_lines(report),
    ]


def _drop_lines(report: Report) -> Iterator[str]:
    """Yield the estimates of the drop on the images that did not guide the search."""
    for name, drop in (("confirmation", report.confirmation_drop), ("test", report.test_drop)):
        if drop is not None:
            before, after = (
                level(x, drop.quantity) for x in (drop.original_percent, drop.slim_percent)
            )
            interval = f"{points(drop.upper_points)} to {points(drop.lower_points)}"
            yield (
                f"Estimate: {drop.quantity} went from {before} to {after} on {drop.images:,} "
                f"{name} images ({points(drop.points)} points, "
                f"{100 * (2 * drop.confidence - 1):g} % interval {interval})."
            )


def branch_lines(report: Report) -> list[str]:
    """Return a sentence on the branches that are gone, if any are; does not change the report."""
    can_go = [branch for branch in report.branches if not branch.reason]
    gone = [branch.name for branch in can_go if branch.gone]
    if not gone:
        return []
    more = len(gone) - MAX_BRANCHES
    names = ", ".join(gone) if more <= 0 else f"{', '.join(gone[:MAX_BRANCHES])} and {more} more"
    verb = "is" if len(gone) == 1 else "are"
    return [f"{len(gone)} of {len(can_go)} branches {verb} gone: {names}."]


def layers_removed(report: Report) -> dict[str, str]:
    """Return what became of the layers that do nothing any more, in words, by name."""
    constant = {name for one in report.branches if one.gone for name in one.constant}
    return {
        name: "only its bias is left" if left else "gone"
        for name, (_, left) in report.channels_per_layer.items()
        if not left or name in constant
    }


def sensitivity_words(report: Report) -> tuple[str, str]:
    """Return the unit of the report's sensitivities, and sentences on their meaning."""
    if report.settings.get("step") is None:
        return NO_UNIT, (
            "The sensitivity of a candidate says how much further from the original's the outputs "
            "are without it: the change of their mean squared distance, as a share of the mean "
            "square of the original's outputs. It has no unit, and is no loss. Where layers are "
            "repaired, it counts only the part that a refit is expected to leave."
        )
    unit = "nats" if is_share(report.selection_drop.quantity) else "as the loss"
    return unit, (
        "The sensitivity of a candidate is the change of the mean loss when it goes"
        f"{' (in nats)' * (unit == 'nats')}."
    )


def _nothing_removed_lines(report: Report) -> list[str]:
    """Say layer by layer why nothing was removed; loudly where nothing can be."""
    refused = "no removal of its channels was kept"
    default = refused if report.trajectory.steps else "no removal of its channels was tried"
    layers = {layer.layer: (layer.channels, layer.reason) for layer in report.frozen}
    for name, (channels, _) in report.channels_per_layer.items():
        layers.setdefault(name, (channels, default))
    if {layer.layer for layer in report.frozen} >= report.channels_per_layer.keys():
        opening = [NOTHING_CAN_GO]
    else:
        opening = _end_of_search("Nothing was removed: ", report) or ["Nothing was removed."]
    return [
        *opening,
        *(f"  {name} ({count:,} channels): {why}" for name, (count, why) in layers.items()),
    ]


def _end_of_search(opening: str, report: Report) -> list[str]:
    reason = report.trajectory.stopped_because.strip().rstrip(".")
    return [f"{opening}{reason}."] if reason else []


def _fine_tuning_lines(report: Report) -> list[str]:
    """Say how many rounds of fine-tuning there were, and what became of them."""
    trajectory = report.trajectory
    rounds = trajectory.fine_tunings
    if not rounds:
        return []
    kept = sum(FINE_TUNING in step.recovered_by for step in trajectory.standing_steps)
    kept += FINE_TUNING in trajectory.finished_by
    reasons = [tuning.undone_because for tuning in rounds.values() if not tuning.kept]
    parts = [f"{kept or 'none'} in the result"]
    if unused := len(rounds) - len(reasons) - kept:
        parts.append(f"{unused} not used (no lower drop, or its step was taken back)")
    if reasons:
        last = "the last one: " if reasons[1:] else ""
        parts.append(f"{len(reasons)} undone ({last}{reasons[-1]})")
    return [f"Fine-tuning, {len(rounds)} round{'s' * (len(rounds) > 1)}: {', '.join(parts)}."]


def _frozen_lines(report: Report) -> list[str]:
    if not report.frozen:
        return []
    layers = "1 layer" if len(report.frozen) == 1 else f"{len(report.frozen)} layers"
    return [f"{layers} kept all channels; report.html says why."]


def _speed_line(entry: Latency) -> str:
    where = f"{entry.runtime}, batch {entry.batch_size}, {entry.threads} thread"
    where += "s" if entry.threads > 1 else ""
    interval = f"(95 % interval {entry.speedup_low:.2f} to {entry.speedup_high:.2f})"
    if not entry.measurable:
        return f"Slimming did not make it measurably faster on {where} {interval}."
    if entry.speedup < 1:
        return (
            f"Slimming made it slower on {where}: {entry.speedup:.2f} times the speed {interval}."
        )
    return f"{entry.speedup:.2f} times as fast on {where} {interval}."


def _prediction_line(check: PredictionCheck) -> str:
    sign = MINUS if round(check.off_percent) < 0 else "+"
    return (
        f"The search predicted {check.predicted_speedup:.2f} times as fast on {check.runtime}, "
        f"batch {check.batch_size}; measured: {check.measured_speedup:.2f} times "
        f"({sign}{abs(check.off_percent):.0f} %)."
    )


def _int8_line(int8: Int8) -> str:
    """Say how good slim.int8.onnx is, or why there is none."""
    drop = int8.drop
    if not int8.shipped or drop is None or int8.bytes is None:
        return f"int8 is {'not shipped: ' * (not int8.reason.startswith('skipped'))}{int8.reason}."
    speeds = ", ".join(relative_speed(entry, "slim.onnx") for entry in int8.against_slim)
    return (
        f"slim.int8.onnx: {drop.quantity} {level(drop.slim_percent, drop.quantity)} on "
        f"{drop.images:,} images ({points(drop.points)} points from the original), "
        f"{file_size(int8.bytes)}, {speeds}."
    )


def _image_lines(report: Report) -> list[str]:
    counts = [f"{images:,} {name}" for name, images in report.data.get("images", {}).items()]
    return [f"Images: {', '.join(counts)}. {report.data['description']}"] if counts else []


def _share(before: int, after: int) -> str:
    return share(1 - after / before) if after < before else "nothing"
