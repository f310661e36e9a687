"""The verdict in sentences, also when it is not what was hoped for."""

from __future__ import annotations

from slimnet.records import Latency, Report
from slimnet.report.goal_text import outcome_lines
from slimnet.report.int8 import int8_line
from slimnet.report.numbers import level, points, share, titled
from slimnet.report.prediction import prediction_line
from slimnet.search.recovery import FINE_TUNED


def summary_lines(report: Report) -> list[str]:
    """Return the verdict, what held slimming back, and the notes; does not change the report."""
    removed = report.slim_size.parameters < report.original_size.parameters
    verdict = _removed_lines(report) if removed else _nothing_lines(report)
    speeds = [_speed_line(entry) for entry in report.latency if removed]
    if report.prediction is not None:
        speeds.append(prediction_line(report.prediction))
    notes = (f"Note: {note}" for note in report.notes)
    int8 = [] if report.int8 is None else [int8_line(report.int8)]
    return [*outcome_lines(report), *verdict, *speeds, *int8, *_images(report), *notes]


def verdict_line(report: Report) -> str:
    """Return what came of goals and budget, and what was removed, in one line."""
    return " ".join(summary_lines(report)[: 1 + len(outcome_lines(report))])


def _images(report: Report) -> list[str]:
    """Say how many images each split got, and from where."""
    counts = [f"{images:,} {name}" for name, images in report.data.get("images", {}).items()]
    return [f"Images: {', '.join(counts)}. {report.data['description']}"] if counts else []


def _removed_lines(report: Report) -> list[str]:
    before, after = report.original_size, report.slim_size
    drop = report.test_drop
    before_after = [level(x, drop.quantity) for x in (drop.original_percent, drop.slim_percent)]
    shares = [f"{_share(before.parameters, after.parameters)} of the parameters"]
    if before.conv_weights:
        shares.append(f"{_share(before.conv_weights, after.conv_weights)} of the conv weights")
    if before.macs:
        shares.append(f"{_share(before.macs, after.macs)} of the MACs")
    return [
        f"Removed {', '.join(shares[:-1])} and {shares[-1]}."
        if len(shares) > 1
        else f"Removed {shares[0]}.",
        f"{titled(drop.quantity)} went from {before_after[0]} to "
        f"{before_after[1]} on "
        f"{drop.images:,} test images ({points(drop.points)} points){_budget(report)}.",
        *_ended("The search ended because ", report),
        *_fine_tunings(report),
        *_frozen_count(report),
    ]


def _fine_tunings(report: Report) -> list[str]:
    """Say how many rounds of training there were, and what became of them."""
    trajectory = report.trajectory
    rounds = trajectory.fine_tunings
    if not rounds:
        return []
    standing = [step for step in trajectory.steps[: trajectory.kept_steps] if not step.taken_back]
    stands = sum(FINE_TUNED in step.recovered_by for step in standing)
    stands += FINE_TUNED in trajectory.finished_by
    undone = [told.undone_because for told in rounds.values() if not told.kept]
    parts = [f"what {stands or 'none'} of them learnt is in the result"]
    if lost := len(rounds) - len(undone) - stands:
        parts.append(f"{lost} did not lower the drop, or went with a step that was taken back")
    if undone:
        parts.append(f"{len(undone)} made it worse and {'were' if undone[1:] else 'was'} undone")
    last = f" ({'the last one: ' * bool(undone[1:])}{undone[-1]})" if undone else ""
    return [f"Fine-tuning, {len(rounds)} round{'s' * (len(rounds) > 1)}: {', '.join(parts)}{last}."]


def _nothing_lines(report: Report) -> list[str]:
    """Say layer by layer why nothing went: no silent no-op."""
    reasons = {layer.layer: layer.reason for layer in report.frozen}
    channels = {layer.layer: layer.channels for layer in report.frozen}
    for layer, (before, _) in report.channels_per_layer.items():
        channels.setdefault(layer, before)
        tried = f"no removal of its channels was kept{_budget(report)}"
        reasons.setdefault(layer, tried if report.trajectory.steps else "nothing of it was tried")
    return [
        *(_ended("Nothing was removed: ", report) or ["Nothing was removed."]),
        *(f"  {layer} ({channels[layer]:,} channels): {why}" for layer, why in reasons.items()),
    ]


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


def _frozen_count(report: Report) -> list[str]:
    if not report.frozen:
        return []
    layers = "1 layer" if len(report.frozen) == 1 else f"{len(report.frozen)} layers"
    return [f"{layers} could not be touched; report.html says why."]


def _budget(report: Report) -> str:
    allowed = report.settings.get("max_drop")
    return "" if allowed is None else f"; the budget was {allowed:g} points on the selection split"


def _share(before: int, after: int) -> str:
    return share(1 - after / before) if after < before else "nothing"


def _ended(opening: str, report: Report) -> list[str]:
    reason = report.trajectory.stopped_because.strip().rstrip(".")
    return [f"{opening}{reason}."] if reason else []
