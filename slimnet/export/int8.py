"""Whether the slim network goes to int8 as well: quantised, measured, and kept where it pays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slimnet.errors import SlimnetError
from slimnet.export.int8_choice import inputs_to_quantise_on, quantise_best
from slimnet.export.quantise import number_formats
from slimnet.load import sha256_of
from slimnet.measure import OnnxNetwork, Task, forward, measure_latency
from slimnet.records import Artefacts, Drop, Inputs, Int8, Latency, Splits
from slimnet.settings import Settings

NAME = "slim.int8.onnx"


def try_int8(
    artefacts: Artefacts,
    slim: nn.Module,
    example: Inputs,
    purpose: Task,
    before: Mapping[str, Any],
    splits: Splits,
    settings: Settings,
    note: Mapping[str, str],
) -> tuple[Artefacts, Int8]:
    """Write slim.int8.onnx beside slim.onnx if it is within the budget and faster than that.

    Args:
        artefacts: what was written so far.
        slim: the network in slim.onnx; it is not changed.
        example: preprocessed inputs (images, ...).
        purpose: what the network is for; it defines the drop.
        before: what ``purpose`` measured of the original, by the name of the split.
        splits: calibration to quantise on, selection for the verdict, test for the report.
        settings: max_drop, confidence and the dials of the latency are read.
        note: goes into the file as metadata.

    Returns:
        The artefacts, with the file's hash where it was kept, and what was found. Where it cannot
        be made or measured the reason says so; the rest of the result stands without it.
    """
    path = artefacts.slim_onnx.path.with_name(NAME)
    told = Int8()
    try:
        told = _quantised(path, artefacts, slim, purpose, splits, note)
        with torch.no_grad():
            network = OnnxNetwork(path, forward(slim, example))
        told = _measured(told, network, purpose, before, splits, settings)
        if not told.reason:
            told = _timed(told, path, artefacts, example, settings)
    except SlimnetError as error:
        if isinstance(error.__cause__, OSError):  # a full disk is no reason to go on without it
            raise
        told = replace(told, reason=f"skipped: {error}")
    if told.reason:
        path.unlink(missing_ok=True)
        return artefacts, told
    kept = replace(artefacts, sha256={**artefacts.sha256, NAME: sha256_of(path)})
    return kept, replace(told, shipped=True)


def _quantised(
    path: Path,
    artefacts: Artefacts,
    slim: nn.Module,
    purpose: Task,
    splits: Splits,
    note: Mapping[str, str],
) -> Int8:
    """Write the file by the best method, and return what that was."""
    inputs = inputs_to_quantise_on(slim, splits.calibration, purpose)
    numbers = number_formats()
    source = artefacts.slim_onnx
    note = {name: value for name, value in note.items() if name != "test_drop_points"}
    note |= {"int8_numbers": numbers, "slim_onnx_sha256": source.sha256}
    distances = quantise_best(source.path, inputs, path, note)
    best = min(distances, key=lambda method: distances[method])
    return Int8(ranges=best, numbers=numbers, distances=distances, bytes=path.stat().st_size)


def _measured(
    told: Int8,
    network: OnnxNetwork,
    purpose: Task,
    before: Mapping[str, Any],
    splits: Splits,
    settings: Settings,
) -> Int8:
    """Return the drops added; the test split is looked at where the verdict has been good."""

    def drop(name: str) -> Drop:
        measured = purpose.measure(network, getattr(splits, name), settings.confidence)
        known = before[getattr(splits, name).name]
        return purpose.drop(known, measured, settings.confidence)

    selection = drop("selection")
    told = replace(told, selection_drop=selection)
    if not selection.upper_points <= settings.max_drop:
        return replace(told, reason=_over_budget(selection, settings))
    return replace(told, test_drop=drop("test"))


def _over_budget(drop: Drop, settings: Settings) -> str:
    judged = "by the plain estimate"
    if settings.confidence > 0.5:
        judged = f"its upper {100 * settings.confidence:g} % bound is {drop.upper_points:.2f}"
    return (
        f"on the selection split it drops {drop.points:.2f} points from the original, {judged}, "
        f"and {settings.max_drop:g} are allowed for slimming and int8 together"
    )


def _timed(
    told: Int8, path: Path, artefacts: Artefacts, example: Inputs, settings: Settings
) -> Int8:
    """Return the latencies added, and the reason where it is not faster than slim.onnx."""
    dials = (settings.latency_batch, settings.threads, settings.latency_samples)
    more: dict[str, Any] = {"seed": settings.seed, "runtimes": ("onnxruntime-cpu",)}
    against_original, against_slim = (
        measure_latency(file.path, path, example, *dials, **more)
        for file in (artefacts.original_onnx, artefacts.slim_onnx)
    )
    told = replace(told, against_original=against_original, against_slim=against_slim)
    return replace(told, reason=_not_faster(against_slim))


def _not_faster(timed: Sequence[Latency]) -> str:
    """Return why it is not kept, "" where it is faster somewhere and slower nowhere."""
    known = [entry for entry in timed if entry.measurable]
    if known and all(entry.speedup > 1 for entry in known):
        return ""
    speeds = ", ".join(
        f"{entry.speedup:.2f} times the speed at batch {entry.batch_size} "
        f"(95 % interval {entry.speedup_low:.2f} to {entry.speedup_high:.2f})"
        for entry in timed
    )
    found = "slower" if any(entry.speedup < 1 for entry in known) else "not measurably faster"
    return f"it is {found} than slim.onnx on this machine: {speeds}"
