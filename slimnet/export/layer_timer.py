"""Layer times of a network as it would be deployed: run and profiled on the runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from slimnet.export.onnx_file import write_onnx
from slimnet.export.reweighted import write_reweighted
from slimnet.export.translated import Translated, translate
from slimnet.measure import fill_batch, input_tensors, profile_layers, profile_torch_layers
from slimnet.search import LayerTimer
from slimnet.settings import RUNTIMES, Settings

PROFILE_IMAGES = 8


def layer_timer(original: Translated, settings: Settings) -> LayerTimer:
    """Return a function from a network, which it does not change, to milliseconds by layer name.

    The example's rows are repeated to a batch of 8; the settings say which runtime and threads. In
    PyTorch the network itself runs, elsewhere its ONNX file: the last one that was translated, with
    the network's weights, where that is proven to be the network.
    """
    batch, few = (fill_batch(original.example, images) for images in (PROFILE_IMAGES, 2))
    runtime = RUNTIMES[settings.runtime]
    arrays = [tensor.numpy() for tensor in input_tensors(batch)]
    last = original

    def time_layers(network: nn.Module) -> Mapping[str, float]:
        nonlocal last
        if runtime == "torch-cuda":
            return profile_torch_layers(network, batch)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "profiled.onnx"
            if not write_reweighted(last.proto, network, few, file):
                last = translate(network, few, original.opset)
                write_onnx(last, file, {}, check_batches=())
            return profile_layers(file, arrays, settings.threads, runtime)

    return time_layers
