"""ONNX files opened in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn
from torch.utils import _pytree

from slimnet.errors import ProofError
from slimnet.timing.runtime import RuntimeDoesNotStart

CPU = "CPUExecutionProvider"


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
