"""How long each layer of a network takes, inside the whole network, in PyTorch on a device."""

from __future__ import annotations

from statistics import median
from time import perf_counter

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from slimnet.errors import InputError
from slimnet.load.importing import first_line
from slimnet.measure.forward import forward
from slimnet.measure.torch_device import Stopwatch, copy_to, inputs_on, occupy
from slimnet.records import Inputs

RUNS = 12
WARM_UP_RUNS = 3
LONGEST_OCCUPIED_SECONDS = 0.1


def profile_torch_layers(
    model: nn.Module, example: Inputs, device: str = "cuda"
) -> dict[str, float]:
    """Return the median time of each convolution and linear layer, in milliseconds per run.

    Does not change the model: a copy runs. A layer's time goes on until the next layer begins, so
    that the norm, activation or sum behind it counts with it. It is the device's own time: where
    launching takes longer than computing, the whole network takes longer than its layers.

    Args:
        model: the network, which runs eagerly.
        example: one batch of inputs, (images, ...) each.
        device: "cuda", or "cpu".

    Returns:
        Times by module name; under "" what comes before the first layer.

    Raises:
        InputError: the network does not run on the device.
    """
    try:
        runs = _profile(copy_to(model, device), inputs_on(example, device), device)
    except Exception as error:  # a network's own code may raise anything
        raise InputError(
            f"the network does not run in PyTorch on {device}: {first_line(error)}; make what it "
            "creates lie where its inputs do, free memory there, or choose another runtime"
        ) from error
    names = {name for run in runs for name in run}
    return {name: median(run.get(name, 0.0) for run in runs) for name in names}


def _profile(network: nn.Module, batch: Inputs, device: str) -> list[dict[str, float]]:
    watch = Stopwatch(device)
    for name, module in network.named_modules():
        if isinstance(module, (_ConvNd, nn.Linear)):
            module.register_forward_pre_hook(lambda module, args, name=name: watch.mark(name))
    runs, seconds = [], 0.0
    with torch.inference_mode():
        for _ in range(WARM_UP_RUNS + RUNS):
            occupy(device, seconds)
            started = perf_counter()
            watch.mark("")
            forward(network, batch)
            watch.mark("")
            # long enough for the next run to be launched as a whole before it starts
            seconds = min(LONGEST_OCCUPIED_SECONDS, 2 * (perf_counter() - started))
            runs.append(watch.read_ms())
    return runs[WARM_UP_RUNS:]
