"""An ONNX file as a network that can be called, so that it is measured as every other one is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from slimnet.measure.runtime import open_session, session_options


class OnnxNetwork(nn.Module):
    """An ONNX file on ONNX Runtime's CPU, one thread, called as the network that it came from.

    ``form`` is any output of that network: outputs of the file are put together in the same way.
    Without it, a call gives the file's first output alone.
    """

    def __init__(self, path: Path, form: Any = None) -> None:
        super().__init__()
        self._session = open_session(str(path), "onnxruntime-cpu", session_options(1))
        self._names = [value.name for value in self._session.get_inputs()]
        self._form, self._leaves = None, None
        if form is not None:
            self._leaves, self._form = _pytree.tree_flatten(form)

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return all outputs for these inputs, (images, ...) each."""
        arrays = (tensor.detach().contiguous().numpy() for tensor in inputs)
        given = self._session.run(None, dict(zip(self._names, arrays, strict=True)))
        return [torch.from_numpy(array) for array in given]

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """Return the outputs for inputs (images, ...), by place or by the network's own names."""
        if len(self._names) > 1:  # an only one is called "input", whatever the network calls it
            inputs += tuple(named[name] for name in self._names[len(inputs) :])
        else:
            inputs += tuple(named.values())
        outputs = self.run(inputs)
        if self._leaves is None or self._form is None:
            return outputs[0]
        found = iter(outputs)
        leaves = [next(found) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        return _pytree.tree_unflatten(leaves, self._form)
