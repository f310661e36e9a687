"""The start of a run: the data in three splits and the loaded network; and the plan it makes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]
"""Preprocessed inputs, (images, ...), and their labels, (images,) int64."""

Inputs = Tensor | tuple[Tensor, ...]
"""The inputs of a network, (images, ...): one tensor, or several as positional arguments."""

Shape = tuple[int, ...]
Shapes = Shape | tuple[Shape, ...]
"""The shape of one input without the batch axis, or those of several."""


class Batches(Protocol):
    """An iterable that gives the same batches each time.

    For classification they are ``Batch``; for a task of the user's own, whatever the data give.
    """

    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Split:
    """One part of the data; ``images`` counts the images of all its batches."""

    name: str
    images: int
    batches: Batches


@dataclass(frozen=True)
class Splits:
    """The data, divided by purpose.

    ``calibration`` serves saliency, oracle and repair, ``selection`` the search's own decisions.
    ``confirmation`` serves the one statement on the drop; it is None where that is an estimate.
    ``test`` gives one figure of the report, if such images are given. ``description`` says where
    each part came from. ``classes`` is the number of classes if the data name them (image folders),
    else None. ``preprocessing`` is how pixels became inputs.
    """

    calibration: Split
    selection: Split
    test: Split | None
    description: str
    classes: int | None
    preprocessing: Mapping[str, Any]
    confirmation: Split | None = None

    @property
    def all(self) -> tuple[Split, ...]:
        """All parts that there are."""
        parts = (self.calibration, self.selection, self.confirmation, self.test)
        return tuple(part for part in parts if part is not None)

    @property
    def evaluated(self) -> tuple[Split, ...]:
        """The parts that a drop is measured on."""
        return self.all[1:]

    def mapped(self, change: Callable[[Split], Split]) -> "Splits":
        """Return the same with every part changed."""
        return replace(
            self,
            calibration=change(self.calibration),
            selection=change(self.selection),
            confirmation=None if self.confirmation is None else change(self.confirmation),
            test=None if self.test is None else change(self.test),
        )


@dataclass(frozen=True)
class LoadedModel:
    """A trained network in eval mode on the CPU, and its origin.

    ``source`` names it in the report. ``sha256`` is the hash of its file, None for a live module.
    ``notes`` go into the report. ``given`` is the network before plain layers took the place of
    layers that compute their weights or pad by themselves; None if there were none.
    """

    model: nn.Module
    source: str
    sha256: str | None
    notes: tuple[str, ...] = ()
    given: nn.Module | None = None


@dataclass(frozen=True)
class Frozen:
    """A layer that must keep all its output channels, and why."""

    layer: str
    channels: int
    reason: str


Plan = Mapping[str, Mapping[str, tuple[int, ...]]]
"""The channels to remove: module name -> {"out": indices, "in": indices}.

Indices are sorted and count in the original network.
"""

Channels = Mapping[str, Mapping[str, int]]
"""How many channels a layer has: module name -> {"out": count, "in": count}."""


@dataclass(frozen=True)
class PlanFile:
    """The content of a plan file.

    ``channels`` are the original network's, for each module in the plan; {} if the file has none.
    ``source_sha256`` is the hash of the model file that the plan was made for. ``input_shape`` is
    the shape of one input without the batch axis. Either is None if the file does not say.
    """

    plan: Plan
    channels: Channels
    source_sha256: str | None
    input_shape: tuple[int, ...] | None = None
