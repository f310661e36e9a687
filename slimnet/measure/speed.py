"""How much faster the slim network is, on every runtime that the settings ask for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from slimnet.measure.latency import measure_latency
from slimnet.measure.torch_latency import measure_torch_latency
from slimnet.records import Artefacts, Inputs, Latency
from slimnet.settings import Settings


def measure_speed(
    artefacts: Artefacts,
    original: nn.Module,
    slim: nn.Module,
    example: Inputs,
    settings: Settings,
    further_batch_sizes: Sequence[int] = (),
) -> tuple[Latency, ...]:
    """Time both ONNX files, and both networks where PyTorch is the runtime; changes neither.

    Args:
        artefacts: the files of both networks.
        original: the network as it came.
        slim: what is left of it.
        example: preprocessed inputs (images, ...), repeated to fill a batch.
        settings: latency_batch, latency_samples, threads, runtime and seed are read.
        further_batch_sizes: beside those of the settings.
    """
    batch_sizes = tuple(sorted({*settings.latency_batch, *further_batch_sizes}))
    timed = measure_latency(
        artefacts.original_onnx.path,
        artefacts.slim_onnx.path,
        example,
        batch_sizes,
        settings.threads,
        settings.latency_samples,
        seed=settings.seed,
    )
    if settings.runtime == "torch-cuda":
        timed += measure_torch_latency(
            original, slim, example, batch_sizes, settings.latency_samples, seed=settings.seed
        )
    return timed
