"""ONNX Runtime: the runtime, on the CPU or on CUDA, and an ONNX file called as a network."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree

from slimnet.errors import ProofError
from slimnet.records import Inputs
from slimnet.timing.onnx_reader import NodeTimes, OnnxReader, arrays_of, onnx_file, pair_file
from slimnet.timing.runtime import (
    Prepare,
    Run,
    RuntimeDoesNotStart,
    TimedNetwork,
    Timer,
    pair_images,
)

CPU = "CPUExecutionProvider"
PROFILED_RUNS = 4  # of each session; a guess
WARM_UP_RUNS = 2  # a guess: the first one allocates memory


@dataclass(frozen=True)
class OnnxRuntime(OnnxReader):
    """ONNX Runtime with one execution provider."""

    provider: str

    @property
    def library(self) -> str:
        """Name and version of the library."""
        return f"onnxruntime {onnxruntime.__version__}"

    def missing(self) -> list[str]:
        """Return the parts that this machine lacks for the runtime, in words."""
        has_provider = self.provider in onnxruntime.get_available_providers()
        package = [] if has_provider else ["the package onnxruntime-gpu in place of onnxruntime"]
        return [*super().missing(), *package]

    def open(self, network: TimedNetwork, threads: int) -> Prepare:
        """Open the network's ONNX file; see ``Runtime.open``."""
        session = open_session(onnx_file(network), session_options(threads), self.provider)
        return partial(self._prepare, session)

    def _prepare(self, session: Any, batch: Inputs, way: str) -> Run:
        """Return what runs a session on a batch, which is placed on the device."""
        binding = session.io_binding()
        arrays = arrays_of(batch)
        for value, array in zip(session.get_inputs(), arrays, strict=True):
            placed = onnxruntime.OrtValue.ortvalue_from_numpy(array, self.device, 0)
            binding.bind_ortvalue_input(value.name, placed)
        for value in session.get_outputs():
            binding.bind_output(value.name, self.device)
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime raises many unrelated classes
            size = len(arrays[0])
            raise ProofError(f"ONNX Runtime cannot run a batch of {size}: {error}") from error
        return lambda: session.run_with_iobinding(binding)

    def node_times(self, file: Path, batch: Sequence[NDArray[Any]], threads: int) -> NodeTimes:
        """Return the times of nodes, from ONNX Runtime's profile; see ``OnnxReader.node_times``."""
        with tempfile.TemporaryDirectory() as folder:
            options = session_options(threads)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = open_session(file, options, self.provider)
            names = [value.name for value in session.get_inputs()]
            for _ in range(WARM_UP_RUNS + PROFILED_RUNS):
                session.run(None, dict(zip(names, batch, strict=True)))
            times = _read_profile(Path(session.end_profiling()))
            return {node: milliseconds[-PROFILED_RUNS:] for node, milliseconds in times.items()}

    def onnx_name(self, node: str) -> str:
        """Return a node's name from before ONNX Runtime rewrote it."""
        return node.removeprefix("fused ").removesuffix("_nchwc")

    def pair_timer(self, width: int, threads: int) -> Timer:
        """Return a timer of two convolutions; see ``Runtime.pair_timer``."""
        session = open_session(pair_file(width), session_options(threads), self.provider)
        batch = {"input": pair_images(1)}

        def time_ms() -> float:
            started = perf_counter()
            session.run(None, batch)
            session.run(None, batch)
            return 1000 * (perf_counter() - started)

        time_ms()
        return time_ms


def session_options(threads: int) -> Any:
    """Return options for a fixed number of threads, one operator after the other, no log."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    # Idle threads of one session must not spin on the cores while the other is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def open_session(model: Path | bytes, options: Any, provider: str = CPU) -> Any:
    """Return a session for an ONNX file or its content, on the provider and no other.

    Raises:
        ProofError: ONNX Runtime cannot load the file.
        RuntimeDoesNotStart: ONNX Runtime fell back to the CPU.
    """
    name = model.name if isinstance(model, Path) else "the network"
    content = str(model) if isinstance(model, Path) else model
    try:
        session = onnxruntime.InferenceSession(content, options, providers=[provider])
    except Exception as error:  # onnxruntime raises many unrelated classes
        raise ProofError(f"ONNX Runtime cannot load {name}: {error}") from error
    # A provider whose libraries are missing falls back to the CPU without raising.
    if session.get_providers()[0] != provider:
        raise RuntimeDoesNotStart(
            f"ONNX Runtime has {provider} but cannot start it, most often because a library of "
            "CUDA or cuDNN is missing or of another version; install it, or choose another runtime"
        )
    return session


def _read_profile(profile: Path) -> NodeTimes:
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in json.loads(profile.read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            times[name, event["args"]["op_name"]].append(event["dur"] / 1000)
    return times


class OnnxNetwork(nn.Module):
    """An ONNX file on ONNX Runtime's CPU, one thread, called as the network that it came from.

    ``form`` is any output of that network. A call puts the file's outputs together in the same
    way. Without ``form``, it returns the first output alone.

    Raises:
        ProofError: ONNX Runtime cannot load the file.
    """

    def __init__(self, path: Path, form: Any = None) -> None:
        super().__init__()
        self._session = open_session(path, session_options(1))
        self._names = [value.name for value in self._session.get_inputs()]
        self._form, self._leaves = None, None
        if form is not None:
            self._leaves, self._form = _pytree.tree_flatten(form)

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return all outputs for these inputs, (images, ...) each."""
        arrays = (tensor.detach().contiguous().numpy() for tensor in inputs)
        outputs = self._session.run(None, dict(zip(self._names, arrays, strict=True)))
        return [torch.from_numpy(array) for array in outputs]

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """Return the outputs for inputs (images, ...), by place or by the network's own names."""
        if len(self._names) > 1:  # an only one is called "input", whatever the network calls it
            inputs += tuple(named[name] for name in self._names[len(inputs) :])
        else:
            inputs += tuple(named.values())
        outputs = self.run(inputs)
        if self._leaves is None or self._form is None:
            return outputs[0]
        rest = iter(outputs)
        leaves = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        return _pytree.tree_unflatten(leaves, self._form)
