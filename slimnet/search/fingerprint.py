"""What a search depends on, as one hash: a journal serves only the search that began it."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from slimnet.groups import Group
from slimnet.measure import Task, measured_on
from slimnet.records import Split
from slimnet.settings import GOALS, RUNTIMES, Settings

LATER = {*GOALS, "cache", "int8", "opset"}


def fingerprint(
    model: nn.Module,
    groups: Sequence[Group],
    images: Sequence[Split],
    selection: Any,
    settings: Settings,
    task: Task,
) -> str:
    """Return the hash of weights, groups, images, dials, versions, threads and processor.

    The model is not changed. Dials that matter only after the search do not count. ``selection`` is
    what the model makes of the selection images, and the images of the splits count as they are.
    """
    dials = settings.as_dict()
    plain = {
        "settings": {name: dials[name] for name in dials if name not in LATER},
        "groups": [(group.name, group.units) for group in groups],
        "slimnet": version("slimnet"),
        "torch": torch.__version__,
        "machine": measured_on(RUNTIMES[settings.runtime], settings.threads),
        "threads": torch.get_num_threads(),
        "task": _told(task, settings.task),
    }
    found = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for split in {id(split): split for split in images}.values():
        for batch in split.batches:
            _update(found, batch)
    for tensor in _values(model):
        _update(found, tensor)
    with torch.no_grad():
        # what a task's functions call may have changed though they have not
        _update(found, task.losses(model, next(iter(images[0].batches))))
    _update(found, [getattr(selection, field.name) for field in fields(selection)])
    return found.hexdigest()


def _update(found: Any, value: Any) -> None:
    """Let a tensor, or whatever holds some, count bit by bit."""
    for leaf in tree_leaves(value):
        found.update(_bytes(leaf) if isinstance(leaf, Tensor) else repr(leaf).encode())


def _told(task: Task, file: str | None) -> list[str]:
    """Return the code of a task's functions and of the file they are in, as far as it is known."""
    told = [Path(file).read_text(encoding="utf-8")] if file else []
    for function in (task.loss, task.score):
        try:
            told.append(inspect.getsource(function))
        except (OSError, TypeError):
            told.append(getattr(function, "__qualname__", type(function).__name__))
    return told


def _values(model: nn.Module) -> Iterator[Tensor]:
    for named in (model.named_parameters(), model.named_buffers()):
        for _, tensor in named:
            yield tensor


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
