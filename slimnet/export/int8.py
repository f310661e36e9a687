"""Whether the slim network goes to int8 as well: quantised, measured, and shipped where it pays."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.errors import ProofError, SlimnetError
from slimnet.export.quantise import METHODS, number_formats, quantise
from slimnet.load import sha256_of
from slimnet.options import OutputOptions
from slimnet.records import Artefacts, Drop, Inputs, Int8, Latency, Split, Splits
from slimnet.tasks import Task, forward, input_tensors, output_tensors
from slimnet.timing import RUNTIMES, OnnxNetwork, TimedNetwork, measure_latency

NAME = "slim.int8.onnx"
MAX_IMAGES = 256  # for the ranges; a guess
MAX_BATCHES = 32  # that they come from: reading all batches of a large split would take minutes
IMAGES_AT_ONCE = 4  # the quantiser holds all maps of so many images
HELD_OUT_EVERY = 4  # a guess: a quarter compares the methods


def try_int8(
    artefacts: Artefacts,
    slim: nn.Module,
    example: Inputs,
    task: Task,
    before: Mapping[str, Any],
    splits: Splits,
    options: OutputOptions,
    note: Mapping[str, str],
) -> tuple[Artefacts, Int8]:
    """Write slim.int8.onnx beside slim.onnx if it is within the budget and faster.

    Args:
        artefacts: the files that were written so far.
        slim: the network in slim.onnx; it is not changed.
        example: preprocessed inputs (images, ...).
        task: defines the drop.
        before: the original's measurements by ``task``, by the name of the split.
        splits: calibration to quantise on, selection for the decision, test for the report.
        options: max_drop, confidence and the options of the latency are read.
        note: goes into the file as metadata.

    Returns:
        The artefacts, with the file's hash if it is shipped, and the record of the attempt. Where
        the file cannot be made or measured, the record's reason says so.
    """
    path = artefacts.slim_onnx.path.with_name(NAME)
    record = Int8()
    try:
        record = _write(path, artefacts, slim, task, splits, note)
        with torch.no_grad():
            network = OnnxNetwork(path, forward(slim, example))
        record = _with_drops(record, network, task, before, splits, options)
        if not record.reason:
            record = _with_latencies(record, path, artefacts, example, options)
    except SlimnetError as error:
        if isinstance(error.__cause__, OSError):  # a full disk is no reason to go on without it
            raise
        record = replace(record, reason=f"skipped: {error}")
    if record.reason:
        path.unlink(missing_ok=True)
        return artefacts, record
    digests = {**artefacts.sha256, NAME: sha256_of(path)}
    return replace(artefacts, sha256=digests), replace(record, shipped=True)


def _write(
    path: Path,
    artefacts: Artefacts,
    slim: nn.Module,
    task: Task,
    splits: Splits,
    note: Mapping[str, str],
) -> Int8:
    """Write the file by the best method, and return a record of the methods."""
    inputs = inputs_to_quantise_on(slim, splits.calibration, task)
    numbers = number_formats()
    source = artefacts.slim_onnx
    note = {name: value for name, value in note.items() if name != "test_drop_points"}
    note |= {"int8_numbers": numbers, "slim_onnx_sha256": source.sha256}
    distances = quantise_best(source.path, inputs, path, note)
    best = min(distances, key=lambda method: distances[method])
    return Int8(ranges=best, numbers=numbers, distances=distances, bytes=path.stat().st_size)


def inputs_to_quantise_on(model: nn.Module, split: Split, task: Task) -> list[Inputs]:
    """Return the inputs (images, ...) of about 256 images from all over the split, 4 at a time.

    The model is not changed.
    """
    batch_images = max(1, task.images(next(iter(split.batches))))
    batches = math.ceil(split.images / batch_images)
    stride = math.ceil(batches / MAX_BATCHES)
    each = math.ceil(MAX_IMAGES / math.ceil(batches / stride))
    taken = (task.inputs(model, x, each) for x in islice(split.batches, 0, None, stride))
    return [part for inputs in taken for part in _parts(inputs)]


def _parts(inputs: Inputs) -> list[Inputs]:
    if isinstance(inputs, Tensor):
        return list(torch.split(inputs, IMAGES_AT_ONCE))
    return list(zip(*(torch.split(tensor, IMAGES_AT_ONCE) for tensor in inputs), strict=True))


def quantise_best(
    source: Path, inputs: Sequence[Inputs], path: Path, note: Mapping[str, str]
) -> dict[str, float]:
    """Write the ONNX file ``source`` in int8 to ``path``, by the method that changes it least.

    The methods are compared on the last and every fourth of the inputs before it. The others give
    the ranges.

    Returns:
        For every method how far its outputs are from the source's (see ``_distance``).

    Raises:
        InputError: it cannot be quantised.
        ProofError: no method gave a file that is valid and runs.
    """
    held_out = inputs[::-HELD_OUT_EVERY]
    ranging = [x for number, x in enumerate(reversed(inputs)) if number % HELD_OUT_EVERY] or inputs
    distances: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            made = Path(folder) / f"{method}.onnx"
            quantise(source, ranging, method, made, {**note, "int8_ranges": method})
            distances[method] = _distance(OnnxNetwork(source), OnnxNetwork(made), held_out)
            if not distances[method] > min(distances.values()):
                path.write_bytes(made.read_bytes())
    if not all(map(math.isfinite, distances.values())):
        raise ProofError("its outputs in int8 are not finite")
    return distances


def _distance(one: OnnxNetwork, other: OnnxNetwork, batches: Sequence[Inputs]) -> float:
    """Return the root mean square of the outputs' differences, as a share of the outputs' own.

    This is the mean over all outputs that are not whole numbers.
    """
    sums = sum(
        torch.tensor([_squares(x, y) for x, y in zip(*outputs, strict=True)])
        for outputs in (
            [output_tensors(network.run(input_tensors(inputs))) for network in (one, other)]
            for inputs in batches
        )
    )
    differences, own = torch.as_tensor(sums).unbind(1)
    return float((differences / own.clamp(min=1e-30)).sqrt().mean())


def _squares(one: Tensor, other: Tensor) -> tuple[float, float]:
    one, other = one.double(), other.double()
    return float((one - other).square().sum()), float(one.square().sum())


def _with_drops(
    record: Int8,
    network: OnnxNetwork,
    task: Task,
    before: Mapping[str, Any],
    splits: Splits,
    options: OutputOptions,
) -> Int8:
    """Return the record with its drops. Only within the budget is the test split looked at."""

    def drop(split: Split) -> Drop:
        after = task.measure(network, split, options.confidence)
        return task.drop(before[split.name], after, options.confidence)

    selection = drop(splits.selection)
    record = replace(record, selection_drop=selection)
    if not selection.upper_points <= options.max_drop:
        return replace(record, reason=_over_budget(selection, options))
    return replace(record, test_drop=drop(splits.test))


def _over_budget(drop: Drop, options: OutputOptions) -> str:
    bound = "by the plain estimate"
    if options.confidence > 0.5:
        bound = f"its upper {100 * options.confidence:g} % bound is {drop.upper_points:.2f}"
    return (
        f"on the selection split it drops {drop.points:.2f} points from the original, {bound}, "
        f"and {options.max_drop:g} are allowed for slimming and int8 together"
    )


def _with_latencies(
    record: Int8, path: Path, artefacts: Artefacts, example: Inputs, options: OutputOptions
) -> Int8:
    """Return the record with latencies, and with a reason if it is not faster than slim.onnx."""
    int8, sizes = TimedNetwork(path), sorted(set(options.latency_batch))
    against_original, against_slim = (
        measure_latency(
            RUNTIMES["ort-cpu"], (TimedNetwork(file.path), int8), example, sizes, options
        )
        for file in (artefacts.original_onnx, artefacts.slim_onnx)
    )
    reason = _not_faster(against_slim)
    return replace(
        record, against_original=against_original, against_slim=against_slim, reason=reason
    )


def _not_faster(timed: Sequence[Latency]) -> str:
    """Return why it is not shipped, "" where it is faster somewhere and slower nowhere."""
    sure = [entry for entry in timed if entry.measurable]
    if sure and all(entry.speedup > 1 for entry in sure):
        return ""
    speeds = ", ".join(
        f"{entry.speedup:.2f} times the speed at batch {entry.batch_size} "
        f"(95 % interval {entry.speedup_low:.2f} to {entry.speedup_high:.2f})"
        for entry in timed
    )
    found = "slower" if any(entry.speedup < 1 for entry in sure) else "not measurably faster"
    return f"it is {found} than slim.onnx on this machine: {speeds}"
