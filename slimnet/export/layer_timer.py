"""Layer times of a network as it would be deployed: run and profiled on the runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx
from torch import nn

from slimnet.export.onnx_file import export_onnx
from slimnet.export.reweighted import write_reweighted
from slimnet.measure import fill_batch, input_tensors, profile_layers, profile_torch_layers
from slimnet.records import Inputs
from slimnet.search import LayerTimer
from slimnet.settings import RUNTIMES, Settings

PROFILE_IMAGES = 8


def layer_timer(example: Inputs, settings: Settings) -> LayerTimer:
    """Return a function from a network, which it does not change, to milliseconds by layer name.

    ``example`` is inputs (images, ...), its rows repeated to a batch of 8; the settings say which
    opset, runtime and threads. In PyTorch the network itself runs, elsewhere its ONNX file, which
    is translated once: networks that only have other weights are written into that.
    """
    batch, few = fill_batch(example, PROFILE_IMAGES), fill_batch(example, 2)
    runtime = RUNTIMES[settings.runtime]
    arrays = [tensor.numpy() for tensor in input_tensors(batch)]
    translated: onnx.ModelProto | None = None

    def time_layers(network: nn.Module) -> Mapping[str, float]:
        nonlocal translated
        if runtime == "torch-cuda":
            return profile_torch_layers(network, batch)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "profiled.onnx"
            if translated is None or not write_reweighted(translated, network, few, file):
                export_onnx(network, example, file, settings.opset, {}, check_batches=())
                translated = onnx.load(str(file))
            return profile_layers(file, arrays, settings.threads, runtime)

    return time_layers
