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
    the network's weights, where that is proven to be the network. The original's file runs in turns
    with it: where that takes longer than it did at the function's first call, or less, the machine
    has another speed than then, and all times are given as they would have been then.
    """
    batch, few = (fill_batch(original.example, images) for images in (PROFILE_IMAGES, 2))
    runtime = RUNTIMES[settings.runtime]
    arrays = [tensor.numpy() for tensor in input_tensors(batch)]
    last, first_ms = original, 0.0

    def time_layers(network: nn.Module) -> Mapping[str, float]:
        nonlocal last, first_ms
        if runtime == "torch-cuda":
            return profile_torch_layers(network, batch)
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("original.onnx", "profiled.onnx")]
            files[0].write_bytes(original.proto.SerializeToString())
            if not write_reweighted(last.proto, network, few, files[1]):
                last = translate(network, few, original.opset)
                write_onnx(last, files[1], {}, check_batches=())
            before, after = profile_layers(files, arrays, settings.threads, runtime)
        now_ms = sum(before.values())
        first_ms = first_ms or now_ms
        pace = first_ms / now_ms if now_ms else 1.0
        return {name: milliseconds * pace for name, milliseconds in after.items()}

    return time_layers
