"""Slim networks in int8: quantised, measured, and shipped where it pays."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from slimnet.errors import ProofError, SlimnetError
from slimnet.export.onnx_file import translate, write_onnx
from slimnet.export.quantise import METHODS, number_formats, quantise
from slimnet.load import partial_file, sha256_of
from slimnet.options import ESTIMATE, OutputOptions
from slimnet.records import Artefacts, Inputs, Int8, Latency, Split, Splits
from slimnet.search import FoundState
from slimnet.tasks import Task, drops, fill_batch, forward, input_tensors, output_tensors
from slimnet.timing import RUNTIMES, OnnxNetwork, TimedNetwork, measure_latency

NAME, FLOAT_NAME = "slim.int8.onnx", "slim.onnx"
MAX_IMAGES = 256  # for the ranges; a guess
MAX_BATCHES = 32  # that they come from: reading all batches of a large split would take minutes
IMAGES_AT_ONCE = 4  # the quantiser holds all maps of so many images
HELD_OUT_EVERY = 4  # a guess: a quarter compares the methods


@dataclass(frozen=True)
class Int8Network:
    """A network in int8, in a temporary file. ``record`` says how it was made.

    ``network`` is None, and the record's reason says why, where it could not be made.
    """

    path: Path
    network: OnnxNetwork | None
    record: Int8

    @property
    def float_path(self) -> Path:
        """The same network in float."""
        return self.path.with_name(FLOAT_NAME)


def make_int8(
    folder: Path,
    state: FoundState,
    example: Inputs,
    task: Task,
    splits: Splits,
    original: Any,
    options: OutputOptions,
) -> Int8Network:
    """Write a state of the search as ONNX and in int8; its network is not changed.

    Args:
        folder: where a folder with the files is made, named by the state's step.
        state: the state.
        example: preprocessed inputs (images, ...).
        task: defines the drop.
        splits: calibration to quantise on, selection for the estimate of the drop.
        original: the original's measurement on the selection images.
        options: opset and dynamic_size are read.
    """
    slim, folder = state.network, folder / str(state.step)
    folder.mkdir()
    source, path = folder / FLOAT_NAME, folder / NAME
    try:
        translated = translate(slim, fill_batch(example, 2), options.opset, options.dynamic_size)
        write_onnx(translated, source, {})
        inputs = inputs_to_quantise_on(slim, splits.calibration, task)
        distances = quantise_best(source, inputs, path, {})
        with torch.no_grad():
            network = OnnxNetwork(path, forward(slim, example))
        measured = task.measure(network, splits.selection, ESTIMATE)
    except SlimnetError as error:
        if isinstance(error.__cause__, OSError):  # a full disk is no reason to go on without it
            raise
        return Int8Network(path, None, Int8(reason=f"skipped: {error}"))
    record = Int8(
        ranges=min(distances, key=lambda method: distances[method]),
        numbers=number_formats(),
        distances=distances,
        bytes=path.stat().st_size,
        selection_drop=task.drop(original, measured, ESTIMATE),
    )
    return Int8Network(path, network, record)


def ship_int8(
    made: Int8Network,
    artefacts: Artefacts,
    example: Inputs,
    task: Task,
    before: Mapping[str, Any],
    splits: Splits,
    options: OutputOptions,
    note: Mapping[str, str],
) -> tuple[Artefacts, Int8]:
    """Write slim.int8.onnx beside slim.onnx if it is faster; it is within the budget already.

    Args:
        made: slim.onnx's network in int8.
        artefacts: the files that were written so far.
        example: preprocessed inputs (images, ...).
        task: defines the drop.
        before: the original's measurements by ``task``, by the name of the split.
        splits: those that the record gives drops on.
        options: confidence and the options of the latency are read.
        note: goes into the file as metadata.

    Returns:
        The artefacts, with the file's hash if it is shipped, and the record of the attempt.
    """
    record = made.record
    if made.network is None:
        return artefacts, record
    found, _ = drops(task, before, made.network, splits, options)
    record = replace(
        record,
        selection_drop=found["selection"],
        confirmation_drop=found.get("confirmation"),
        test_drop=found.get("test"),
    )
    record = _with_latencies(record, made.path, artefacts, example, options)
    if record.reason:
        return artefacts, record
    path = artefacts.slim_onnx.path.with_name(NAME)
    note = {name: value for name, value in note.items() if name != "drop_points"}
    note |= {
        "int8_numbers": record.numbers,
        "int8_ranges": record.ranges,
        "slim_onnx_sha256": artefacts.slim_onnx.sha256,
    }
    proto = onnx.load(str(made.path))
    onnx.helper.set_model_props(proto, dict(sorted(note.items())))
    with partial_file(path) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
    size, digests = path.stat().st_size, {**artefacts.sha256, NAME: sha256_of(path)}
    return replace(artefacts, sha256=digests), replace(record, bytes=size, shipped=True)


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
