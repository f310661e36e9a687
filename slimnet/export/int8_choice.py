"""How to quantise: tried on calibration images, and judged on others of them."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from slimnet.errors import ProofError
from slimnet.export.quantise import METHODS, quantise
from slimnet.measure import OnnxNetwork, Task, input_tensors, output_tensors
from slimnet.records import Inputs, Split
from slimnet.search.layout import EveryNth

MOST_IMAGES = 256
MOST_BATCHES = 32
IMAGES_AT_ONCE = 4  # the quantiser holds all maps of so many images
JUDGING_EVERY = 4


def inputs_to_quantise_on(model: nn.Module, split: Split, purpose: Task) -> list[Inputs]:
    """Return the inputs of about 256 images from all over the split, 4 at a time; the model stays.

    They are (images, ...) each.
    """
    batch_images = max(1, purpose.images(next(iter(split.batches))))
    batches = math.ceil(split.images / batch_images)
    stride = math.ceil(batches / MOST_BATCHES)
    each = math.ceil(MOST_IMAGES / math.ceil(batches / stride))
    taken = (purpose.inputs(model, x, each) for x in EveryNth(split.batches, stride))
    return [part for inputs in taken for part in _parts(inputs)]


def _parts(inputs: Inputs) -> list[Inputs]:
    if isinstance(inputs, Tensor):
        return list(torch.split(inputs, IMAGES_AT_ONCE))
    return list(zip(*(torch.split(tensor, IMAGES_AT_ONCE) for tensor in inputs), strict=True))


def quantise_best(
    source: Path, inputs: Sequence[Inputs], path: Path, note: Mapping[str, str]
) -> dict[str, float]:
    """Write the ONNX file ``source`` in int8 to ``path``, by the method that changes it least.

    The last and every fourth of the inputs before it judge; the others give the ranges.

    Returns:
        For every method how far its outputs are from the source's (see ``_distance``).

    Raises:
        InputError: it cannot be quantised.
        ProofError: no method gave a file that is valid and runs.
    """
    judging = inputs[::-JUDGING_EVERY]
    ranging = [x for number, x in enumerate(reversed(inputs)) if number % JUDGING_EVERY] or inputs
    distances: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            made = Path(folder) / f"{method}.onnx"
            quantise(source, ranging, method, made, {**note, "int8_ranges": method})
            distances[method] = _distance(OnnxNetwork(source), OnnxNetwork(made), judging)
            if not distances[method] > min(distances.values()):
                path.write_bytes(made.read_bytes())
    if not all(map(math.isfinite, distances.values())):
        raise ProofError("its outputs in int8 are not finite")
    return distances


def _distance(one: OnnxNetwork, other: OnnxNetwork, batches: Sequence[Inputs]) -> float:
    """Return the root mean square of the outputs' differences, as a share of the outputs' own.

    Of several outputs the mean; whole numbers do not count.
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
