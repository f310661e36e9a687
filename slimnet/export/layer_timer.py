"""Layer times of a network as it would be deployed: run and profiled on the runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from slimnet.export.onnx_file import export_onnx
from slimnet.measure import fill_batch, profile_layers, profile_torch_layers
from slimnet.search import LayerTimer
from slimnet.settings import RUNTIMES, Settings

PROFILE_IMAGES = 8


def layer_timer(example: Tensor, settings: Settings) -> LayerTimer:
    """Return a function from a network, which it does not change, to milliseconds by layer name.

    ``example`` is inputs (images, ...), its rows repeated to a batch of 8; the settings say which
    opset, runtime and threads. In PyTorch the network itself runs, elsewhere its ONNX file.
    """
    batch = fill_batch(example, PROFILE_IMAGES)
    runtime = RUNTIMES[settings.runtime]

    def time_layers(network: nn.Module) -> Mapping[str, float]:
        if runtime == "torch-cuda":
            return profile_torch_layers(network, batch)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "profiled.onnx"
            export_onnx(network, example, file, settings.opset, {}, check_batches=())
            return profile_layers(file, batch.numpy(), settings.threads, runtime)

    return time_layers
