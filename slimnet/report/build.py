"""The report of a finished run, made from the records of its stages."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from slimnet.execution import measure_size, output_channels, removed_layers
from slimnet.export import plan_sha256
from slimnet.groups import Branch, Needed
from slimnet.options import Options
from slimnet.records import (
    Artefacts,
    BranchResult,
    Drop,
    Frozen,
    Inputs,
    Int8,
    Latency,
    LoadedModel,
    Parity,
    PredictedLatency,
    PredictionCheck,
    Report,
    Splits,
    Trajectory,
)
from slimnet.report.goals import Baseline, baseline_notes, evaluate_goals
from slimnet.timing import processor

SCHEMA_VERSION = 1
PACKAGES = (
    "slimnet",
    "torch",
    "torchvision",
    "torch-pruning",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "numpy",
)
NOTED_PREDICTION_ERROR_PERCENT = 20  # a guess: at half of it, noise of the timings would show
NOTED_GAIN_POINTS = 1  # a guess: a smaller rise of the score may be chance
NOTED_LOSS_FACTOR = 1.1  # a guess: a smaller rise of the loss is usual after a removal
WITHOUT_LABELS = (
    "there were no labels: the agreement is how often a network answers as the original does; the "
    "drop is how often slim and original disagree, and the accuracy dropped by no more than that"
)


def build_report(
    *,
    command: str,
    options: Options,
    splits: Splits,
    loaded: LoadedModel,
    slim: nn.Module,
    example: Inputs,
    frozen: Sequence[Frozen],
    trajectory: Trajectory,
    selection_drop: Drop,
    test_drop: Drop,
    masked_slim: Parity,
    artefacts: Artefacts,
    timed: Sequence[Latency],
    prediction: PredictionCheck | None,
    seconds: Mapping[str, float],
    baseline: Baseline | None = None,
    int8: Int8 | None = None,
    run_sha256: str | None = None,
    branches: Sequence[Branch] = (),
    needed: Needed = (),
) -> Report:
    """Return the report with its goals evaluated; neither network is changed.

    ``timed`` may hold more batch sizes than the options ask for; these are left out. ``baseline``
    adds goals. ``branches`` could go whole, ``needed`` could not. The other arguments are fields of
    ``Report``, or are what these are made from.
    """
    left = output_channels(slim, removed=True)
    report = Report(
        schema_version=SCHEMA_VERSION,
        slimnet_version=version("slimnet"),
        command=command,
        source=loaded.source,
        source_sha256=loaded.sha256,
        plan_sha256=plan_sha256(trajectory.plan),
        settings=asdict(options),
        data=_data_summary(splits),
        environment=environment(),
        frozen=tuple(frozen),
        channels_per_layer={
            name: (channels, left[name]) for name, channels in output_channels(loaded.model).items()
        },
        trajectory=trajectory,
        original_size=measure_size(loaded.model, example),
        slim_size=measure_size(slim, example),
        selection_drop=selection_drop,
        test_drop=test_drop,
        masked_slim=masked_slim,
        artefacts=artefacts,
        latency=tuple(t for t in timed if t.batch_size in options.latency_batch),
        notes=(
            *trajectory.notes,
            *loaded.notes,
            *drop_notes(selection_drop, test_drop, options),
            *prediction_notes(prediction),
            *score_notes(selection_drop, trajectory),
            *_resumption_notes(trajectory),
        ),
        seconds=seconds,
        prediction=prediction,
        int8=int8,
        run_sha256=run_sha256,
        branches=branch_results(branches, needed, slim),
    )
    return replace(
        report,
        notes=(*report.notes, *baseline_notes(report, baseline)),
        goals=evaluate_goals(report, baseline),
    )


def branch_results(
    branches: Sequence[Branch], needed: Needed, slim: nn.Module
) -> tuple[BranchResult, ...]:
    """Return which branches are gone from the slim network, and why others cannot go.

    The network is not changed.
    """
    removed = removed_layers(slim).keys()
    found = []
    for branch in branches:
        gone = removed >= {*branch.gone, *branch.constant}
        found.append(BranchResult(branch.name, branch.gone, branch.constant, gone))
    return (*found, *(BranchResult(name, reason=reason) for name, reason in needed))


def environment() -> dict[str, Any]:
    """Return versions, processor, cores, GPU and platform; no host, user or path."""
    found: dict[str, Any] = {"python": platform.python_version()}
    for package in PACKAGES:
        found[package.replace("-", "_")] = _version(package)
    found["torch"] = str(torch.__version__)  # with the build: +cpu, +cu130
    found["platform"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    found["cpu"] = processor()
    found["cores"] = _usable_cores()
    found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _data_summary(splits: Splits) -> dict[str, Any]:
    parts = (splits.calibration, splits.selection, splits.test)
    return {
        "description": splits.description,
        "images": {part.name: part.images for part in parts},
        "preprocessing": dict(splits.preprocessing),
    }


def check_prediction(
    predicted: PredictedLatency | None, latency: Sequence[Latency], runtime: str, batch_size: int
) -> PredictionCheck | None:
    """Compare the predicted speed-up with the one measured on this runtime at this batch size.

    None if there is no prediction or no such measurement.
    """
    found = [e for e in latency if (e.runtime, e.batch_size) == (runtime, batch_size)]
    if predicted is None or not found:
        return None
    speedup = predicted.original_ms / predicted.slim_ms
    return PredictionCheck(
        runtime=runtime,
        batch_size=batch_size,
        predicted_original_ms=predicted.original_ms,
        predicted_slim_ms=predicted.slim_ms,
        measured_original_ms=found[0].original_median_ms,
        measured_slim_ms=found[0].slim_median_ms,
        predicted_speedup=speedup,
        measured_speedup=found[0].speedup,
        off_percent=100 * (found[0].speedup / speedup - 1),
        corrections=predicted.corrections,
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


def drop_notes(selection: Drop, test: Drop, options: Options) -> tuple[str, ...]:
    """Return the reservations about the drop, one sentence each."""
    notes = []
    if options.labels == "none":
        notes.append(WITHOUT_LABELS)
    if test.points > options.max_drop:
        notes.append(
            f"on the test split, which decided nothing, the drop is {test.points:.2f} points, "
            f"more than the {options.max_drop:g} allowed on the selection split"
        )
    if options.confidence == 0.5:
        notes.append(
            "the budget holds for the plain estimate (confidence 0.5): by chance alone, the true "
            f"drop can be far from the {selection.points:.2f} points measured"
        )
    elif "Student" in selection.bounds:
        notes.append(
            f"the bounds of the {selection.quantity} are {selection.bounds}: they assume that the "
            "drops of the batches are about normal, and few batches make them wide"
        )
    return tuple(notes)


def score_notes(selection: Drop, trajectory: Trajectory) -> tuple[str, ...]:
    """Return a note if score and loss of the user's own task contradict one another."""
    losses = [step.calibration_loss for step in trajectory.steps if not step.taken_back]
    loss_rose = len(losses) > 1 and losses[-1] > NOTED_LOSS_FACTOR * losses[0]
    score_rose = selection.points < -NOTED_GAIN_POINTS
    if "Student" not in selection.bounds or not (score_rose and loss_rose):
        return ()
    return (
        f"the {selection.quantity} rose by {-selection.points:.2f} points while the loss rose too: "
        "if lower is better, change its sign, or every result will seem to be within the budget",
    )


def _resumption_notes(trajectory: Trajectory) -> tuple[str, ...]:
    if not trajectory.resumed_after_step:
        return ()
    return (
        f"the search was interrupted and resumed after step {trajectory.resumed_after_step}; "
        "the seconds of the stages are those of the last run, the seconds of a step those of the "
        "run that made it",
    )
