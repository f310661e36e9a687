"""What a search depends on, as one hash: a journal serves only the search that began it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version

import torch
from torch import Tensor, nn

from slimnet.groups import Group
from slimnet.measure import Quality, measured_on
from slimnet.records import Split
from slimnet.settings import RUNTIMES, Settings


def fingerprint(
    model: nn.Module,
    groups: Sequence[Group],
    calibration: Sequence[Split],
    selection: Quality,
    settings: Settings,
) -> str:
    """Return the hash of weights, groups, images, dials, versions, threads and processor.

    The model is not changed. The selection images count by what the model makes of them, all that
    the search reads of them; the calibration images, of each of the splits, as they are.
    """
    plain = {
        "settings": settings.as_dict(),
        "groups": [(group.name, group.units) for group in groups],
        "slimnet": version("slimnet"),
        "torch": torch.__version__,
        "machine": measured_on(RUNTIMES[settings.runtime], settings.threads),
        "threads": torch.get_num_threads(),
        "loss": selection.loss,
    }
    found = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for tensor in (*_values(model), selection.predictions, selection.correct):
        found.update(_bytes(tensor))
    for split in calibration:
        for inputs, labels in split.batches:
            found.update(_bytes(inputs))
            found.update(_bytes(labels))
    return found.hexdigest()


def _values(model: nn.Module) -> Iterator[Tensor]:
    for named in (model.named_parameters(), model.named_buffers()):
        for _, tensor in named:
            yield tensor


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
