"""The report of a finished run, made from the records of its stages."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from slimnet.execution import measure_size, output_channels, removed_layers
from slimnet.export import plan_sha256
from slimnet.groups import Branch, Needed
from slimnet.options import Options
from slimnet.records import (
    Artefacts,
    BranchResult,
    ClassDrop,
    Confirmation,
    ConfirmationTest,
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
from slimnet.report.classes import class_notes
from slimnet.report.goals import Baseline, baseline_notes, evaluate_goals
from slimnet.report.notes import drop_notes, prediction_notes, resumption_notes, score_notes
from slimnet.timing import processor

SCHEMA_VERSION = 2
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
    drops: Mapping[str, Drop],
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
    confirmation: Confirmation | None = None,
    class_drops: Sequence[ClassDrop] = (),
) -> Report:
    """Return the report with its goals evaluated; neither network is changed.

    ``drops`` are those on selection, confirmation and test images. ``timed`` may hold more batch
    sizes than the options ask for; these are left out. ``baseline`` adds goals. ``branches`` could
    go whole, ``needed`` could not. The others are fields of ``Report``, or make these.
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
        verdict=_verdict(trajectory, confirmation),
        selection_drop=drops["selection"],
        masked_slim=masked_slim,
        artefacts=artefacts,
        latency=tuple(t for t in timed if t.batch_size in options.latency_batch),
        notes=(
            *trajectory.notes,
            *loaded.notes,
            *drop_notes(drops, confirmation, options),
            *class_notes(class_drops, options),
            *prediction_notes(prediction),
            *score_notes(drops["selection"], trajectory),
            *resumption_notes(trajectory),
        ),
        seconds=seconds,
        prediction=prediction,
        int8=int8,
        run_sha256=run_sha256,
        branches=branch_results(branches, needed, slim),
        confirmation_drop=drops.get("confirmation"),
        test_drop=drops.get("test"),
        confirmation=confirmation,
        class_drops=tuple(class_drops),
    )
    return replace(
        report,
        notes=(*report.notes, *baseline_notes(report, baseline)),
        goals=evaluate_goals(report, baseline),
    )


def _verdict(
    trajectory: Trajectory, confirmation: Confirmation | None
) -> Literal["confirmed", "estimated", "missed", "unchanged"]:
    """Return what can be said of the drop; see ``Report``."""
    if trajectory.kept_steps:
        return "estimated" if confirmation is None else "confirmed"
    if confirmation is None:
        return "unchanged"
    hopeless = trajectory.stopped_because == confirmation.impossible
    return "missed" if confirmation.tests or hopeless else "unchanged"


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
    if (openvino := _version("openvino")) is not None:  # few have it
        found["openvino"] = openvino
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
    return {
        "description": splits.description,
        "images": {part.name: part.images for part in splits.all},
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


def stated_drop(drops: Mapping[str, Drop]) -> Drop:
    """Return the drop that is stated: that on the confirmation images, if there are any."""
    return drops.get("confirmation", drops["selection"])


def with_outcomes(
    confirmation: Confirmation | None,
    tests: tuple[ConfirmationTest, ...],
    *reports: str | Path | None,
) -> Confirmation | None:
    """Return the confirmation with its tests, and the number of earlier runs on its images.

    ``reports`` are report.json files, or folders that may hold one. One that cannot be read knows
    of no run.
    """
    if confirmation is None:
        return None
    known = [0]
    for place in (report for report in reports if report is not None):
        file = Path(place) / "report.json" if Path(place).is_dir() else Path(place)
        try:
            earlier = json.loads(file.read_text(encoding="utf-8"))["confirmation"]
            if earlier["images_sha256"] == confirmation.images_sha256:
                known.append(1 + int(earlier["earlier_runs"]))
        except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
            continue
    return replace(confirmation, tests=tests, earlier_runs=max(known))
