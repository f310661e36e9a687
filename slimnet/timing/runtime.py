"""A runtime: a place where networks run, with the ways to time and to profile them there.

To add one, write a subclass of ``Runtime`` in a file of its own and list it in ``runtimes.py``.
"""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.records import Inputs, LayerLatency

Run = Callable[[], None]
"""Runs a network once, and returns when the device has done its work."""

Prepare = Callable[[Inputs, str], Run | None]
"""Gives what runs an opened network on a batch, in one of the runtime's ways.

None if the network cannot run in this way. A ProofError if it cannot run on the batch at all.
"""

Timer = Callable[[], float]
"""Gives the milliseconds of two runs."""


class RuntimeDoesNotStart(InputError):
    """The runtime is installed, but this machine cannot start it."""


@dataclass(frozen=True)
class TimedNetwork:
    """A network in the forms that runtimes open. Each runtime needs one of the two.

    ``onnx`` is its ONNX file. ``module`` returns it for a device, as PyTorch runs it.
    """

    onnx: Path | None = None
    module: Callable[[str], nn.Module] | None = None


@dataclass(frozen=True)
class Runtime(ABC):
    """A library on a device.

    ``name`` is what users write for the option, ``long_name`` what reports show. ``device`` is
    PyTorch's name of the device, "cpu" or "cuda".
    """

    name: str
    long_name: str
    device: str

    reads_onnx: ClassVar[bool]
    """Whether it opens the ONNX file of a ``TimedNetwork``, or else its module."""
    checks_outputs: ClassVar[bool] = False
    """Whether ``outputs`` is there, to be compared with PyTorch's; the export does so elsewhere."""
    sessions: ClassVar[int] = 1
    """How often both networks are opened anew while they are timed."""

    @property
    def ways(self) -> tuple[str, ...]:
        """Names of the ways to run a network here. Reports show one latency for each."""
        return (self.long_name,)

    @property
    @abstractmethod
    def library(self) -> str:
        """Name and version of the library."""

    def missing(self) -> list[str]:
        """Return the parts that this machine lacks for the runtime, in words."""
        if self.device == "cuda" and not torch.cuda.is_available():
            return ["a GPU that PyTorch sees (torch.cuda.is_available() is false)"]
        return []

    def measured_on(self, threads: int) -> str:
        """Return in one line all that timings here depend on, to tell machines apart."""
        chip = torch.cuda.get_device_name() if self.device == "cuda" else processor()
        return f"{self.long_name}, threads {threads}, {self.library}, {chip}"

    def threads_used(self, threads: int) -> int:
        """Return how many threads run a network where the user allows so many."""
        return threads

    @contextmanager
    def using(self, threads: int) -> Iterator[None]:
        """Set the library to so many threads within the block, where that is a global setting.

        Raises:
            ProofError: the block failed in a network's own code.
        """
        yield

    def place(self, batch: Inputs) -> Inputs:
        """Return a batch where sessions read it; the same one if that is the CPU's memory."""
        return batch

    @abstractmethod
    def open(self, network: TimedNetwork, threads: int) -> Prepare:
        """Open a network, which is not changed, and return what prepares its runs.

        Raises:
            RuntimeDoesNotStart: the runtime does not start here.
            ProofError: the network cannot be opened.
        """

    def outputs(self, network: TimedNetwork, batch: Inputs, threads: int) -> Sequence[Tensor]:
        """Return the network's outputs on a batch (images, ...), where ``checks_outputs``.

        Raises:
            ProofError: the network cannot be opened, or does not run on the batch.
        """
        raise NotImplementedError

    @abstractmethod
    def layer_times(
        self, networks: Sequence[TimedNetwork], batch: Inputs, threads: int
    ) -> list[dict[str, float]]:
        """Return the time of each network's layers inside the network, in ms per run.

        The keys are names of PyTorch modules. The rest of the network stands under "". The
        networks, which are not changed, run in turns on ``batch`` (images, ...).

        Raises:
            InputError: a network does not run here.
        """

    def compare_layers(
        self, networks: Sequence[TimedNetwork], batch: Inputs, threads: int
    ) -> tuple[LayerLatency, ...]:
        """Return the layers of two networks side by side; none where it cannot profile operators.

        Raises:
            InputError: a network does not run here.
        """
        return ()

    @abstractmethod
    def pair_timer(self, width: int, threads: int) -> Timer:
        """Return a timer of two convolutions with ``width`` channels between them.

        See ``pair_weights`` and ``pair_images``. A rectifier stands between the two. No random
        number is drawn from PyTorch's generator.

        Raises:
            RuntimeDoesNotStart: the runtime does not start here.
        """


PAIR_CHANNELS = 64  # before and behind the pair; a guess: the width of a common middle layer
PAIR_SIZE = 16  # height and width of its images; a guess, as small as such a layer's


def pair_weights(width: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the weights of two 3x3 convolutions, 64 to ``width`` and ``width`` to 64 channels."""
    return (
        numpy.full((width, PAIR_CHANNELS, 3, 3), 1e-3, numpy.float32),
        numpy.full((PAIR_CHANNELS, width, 3, 3), 1e-3, numpy.float32),
    )


def pair_images(count: int) -> NDArray[Any]:
    """Return images (count, 64, 16, 16) for such a pair."""
    shape = (count, PAIR_CHANNELS, PAIR_SIZE, PAIR_SIZE)
    return numpy.random.default_rng(0).random(shape, numpy.float32)


CPU_LISTING = Path("/proc/cpuinfo")


def processor() -> str:
    """Return the processor's name and the vector instructions that torch finds in it.

    The name alone may be that of several generations ("AMD EPYC"). Some of these compute 8
    channels at once and others 16.
    """
    name = _listed("model name") or platform.processor() or "unknown"
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def is_arm() -> bool:
    """Return whether the processor is an ARM."""
    return platform.machine().lower().startswith(("arm", "aarch"))


def knows_vnni() -> bool:
    """Return whether the processor is known to sum products of int8 without saturation (VNNI)."""
    return "vnni" in _listed("flags")


def _listed(entry: str) -> str:
    """Return an entry of the first processor in Linux's listing, "" where there is none."""
    try:
        lines = CPU_LISTING.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((x.partition(":")[2].strip() for x in lines if x.startswith(entry)), "")
