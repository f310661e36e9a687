"""The journal of a search: its measurements, written as they are made, to resume a killed run.

The same command takes the same decisions from the same measurements. Measurements that take long,
or that differ from run to run, are therefore read from the journal; the rest is computed again.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from slimnet.groups import Branch, Group
from slimnet.options import DataOptions, ModelOptions, SearchOptions, names_of
from slimnet.records import Split
from slimnet.search.latency_table import read_latency_table
from slimnet.tasks import Task
from slimnet.timing import RUNTIMES

FORMAT = "slimnet journal 5"
STEP = "step"
# options that a search depends on; goals and the form of the files come after it
DECISIVE = names_of(SearchOptions, DataOptions, ModelOptions)


@dataclass(frozen=True)
class _Entry:
    """One measurement, and the offset in bytes at which its line begins."""

    kind: str
    value: Any
    offset: int


class Journal:
    """The measurements of a search, one line each; a resumed run asks for them in the same order.

    A line that was torn when the run was killed counts as not written, like all lines after it.
    ``steps`` is how many steps an interrupted run had finished.

    Args:
        path: the file, which is made or continued. Without one nothing is written. A file that
            cannot be read or written ends no search: it counts as none.
        key: the hash of all that the search depends on. A journal with another key is replaced.
    """

    def __init__(self, path: Path | None = None, key: str = "") -> None:
        self._path = path
        self._recorded: deque[_Entry] = deque()
        head = _Entry(FORMAT, key, 0)
        entries = [] if path is None else _read(path)
        if entries[:1] == [head]:
            self._recorded.extend(entries[1:-1])
            self._cut(entries[-1].offset)
        else:
            self._cut(0)
            self._write(head.kind, head.value)
        self.steps = sum(entry.kind == STEP for entry in self._recorded)

    def replay_or_run(self, kind: str, measure: Callable[[], Any]) -> Any:
        """Return the next value of the interrupted run, or measure and write it.

        ``measure`` returns plain JSON values. They always come back as JSON reads them, so a
        resumed and an undisturbed run see the same bits.
        """
        if self._recorded:
            entry = self._recorded.popleft()
            if entry.kind == kind:
                return entry.value
            self._recorded.clear()  # the search went another way: all that follows is measured
            self._cut(entry.offset)
        return self._write(kind, measure())

    def _write(self, kind: str, value: Any) -> Any:
        text = json.dumps([kind, value], separators=(",", ":"))
        self._edit(lambda file: file.write(f"{_checksum(text)} {text}\n".encode()))
        return json.loads(text)[1]

    def _cut(self, length: int) -> None:
        """Leave only the first ``length`` bytes of the file."""
        self._edit(lambda file: file.truncate(length))

    def _edit(self, edit: Callable[[BinaryIO], object]) -> None:
        """Change the file on the disk; one that cannot be changed is used no more."""
        if self._path is None:
            return
        try:
            with self._path.open("ab") as file:
                edit(file)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self._path = None


def _read(path: Path) -> list[_Entry]:
    """Return the entries up to the first torn line, and an empty one that says where it begins."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError:
        return []
    entries, offset = [], 0
    for line in lines:
        checksum, _, text = line.decode(errors="replace").partition(" ")
        if not text.endswith("\n") or checksum != _checksum(text[:-1]):
            break
        kind, value = json.loads(text)
        entries.append(_Entry(kind, value, offset))
        offset += len(line)
    return [*entries, _Entry("", None, offset)]


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def fingerprint(
    model: nn.Module,
    groups: Sequence[Group],
    branches: Sequence[Branch],
    images: Sequence[Split],
    selection: Any,
    options: SearchOptions,
    task: Task,
) -> str:
    """Return the hash of all that a search depends on; the model is not changed.

    That is weights, groups, branches, options, task, versions, threads and processor, the table
    that ``latency_table`` names, the images themselves and, of the selection images, the record
    ``selection`` of the model's answers. Options that matter only after the search do not count.
    """
    plain = {
        "settings": {key: x for key, x in asdict(options).items() if key in DECISIVE},
        "groups": [(group.name, group.units) for group in groups],
        "branches": [branch.groups for branch in branches],
        "slimnet": version("slimnet"),
        "torch": torch.__version__,
        "machine": RUNTIMES[options.runtime].measured_on(options.threads),
        "threads": torch.get_num_threads(),
        "task": _code_of(task, options.task),
    }
    if options.latency_table is not None:
        plain["latency_table"] = asdict(read_latency_table(options.latency_table, model))
    found = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for split in {id(split): split for split in images}.values():
        for batch in split.batches:
            _update(found, batch)
    _update(found, [*model.parameters(), *model.buffers()])
    with torch.no_grad():
        # a task's functions may call code that has changed, though they have not
        _update(found, task.losses(model, next(iter(images[0].batches))))
    _update(found, [getattr(selection, field.name) for field in fields(selection)])
    return found.hexdigest()


def _update(found: Any, value: Any) -> None:
    """Hash a tensor, or whatever holds tensors, bit by bit."""
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            found.update(leaf.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            found.update(repr(leaf).encode())


def _code_of(task: Task, file: str | None) -> list[str]:
    """Return the code of a task's functions and of their file, or names where there is no code."""
    code = [Path(file).read_text(encoding="utf-8")] if file else []
    for function in (task.loss, task.score):
        try:
            code.append(inspect.getsource(function))
        except (OSError, TypeError):
            code.append(getattr(function, "__qualname__", type(function).__name__))
    return code
