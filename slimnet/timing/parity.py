"""Whether a runtime's outputs are PyTorch's: what is timed must be what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimnet.errors import ProofError
from slimnet.records import Inputs, Parity
from slimnet.tasks import fill_batch, forward, input_tensors, output_tensors
from slimnet.timing.onnx_runtime import OnnxNetwork
from slimnet.timing.pytorch import copy_to
from slimnet.timing.runtime import Runtime, TimedNetwork

TOLERANCE = 1e-4  # of an output's largest value; the zoo's networks are up to 8e-5 off, most 1e-6


def require_parity(
    runtime: Runtime,
    networks: Sequence[TimedNetwork],
    example: Inputs,
    batch_sizes: Sequence[int],
    threads: int,
) -> None:
    """Check that a runtime gives the outputs of PyTorch; the networks are not changed.

    Only a runtime that ``checks_outputs`` is checked.

    Args:
        runtime: where the networks will be timed.
        networks: each as its ONNX file and as its module.
        example: preprocessed inputs (images, ...), repeated to fill a batch.
        batch_sizes: a file may be compiled for each.
        threads: those of the timing.

    Raises:
        ProofError: a network does not run, or an output is off by more than 1e-4 of its largest
            value.
    """
    if not runtime.checks_outputs:
        return
    for network, size in product(networks, batch_sizes):
        assert network.module is not None
        batch = fill_batch(example, size)
        with torch.no_grad():
            reference = forward(copy_to(network.module("cpu"), "cpu"), batch)
        _error_of(runtime, network, batch, reference, threads)


def error_beside_onnx_runtime(runtime: Runtime, file: Path, batches: Sequence[Inputs]) -> float:
    """Return how far a runtime's outputs are from ONNX Runtime's, as a share of their scale.

    It is the largest error of an ONNX file on these batches, one thread each.

    Raises:
        ProofError: see ``require_parity``.
    """
    network, reference = TimedNetwork(file), OnnxNetwork(file)
    return max(
        _error_of(runtime, network, batch, reference.run(input_tensors(batch)), 1)
        for batch in batches
    )


def _error_of(
    runtime: Runtime, network: TimedNetwork, batch: Inputs, reference: Any, threads: int
) -> float:
    outputs = output_tensors(runtime.outputs(network, batch, threads))
    parity = compare_outputs(output_tensors(reference), outputs, TOLERANCE, runtime.library)
    return parity.relative_error


def compare_outputs(
    reference: Sequence[Tensor], outputs: Sequence[Tensor], tolerance: float, runner: str
) -> Parity:
    """Return how far the ``outputs`` (images, ...) of ``runner`` are from PyTorch's ``reference``.

    The error is the largest of any output, each as a share of its own scale.

    Raises:
        ProofError: their number or shapes differ, a value is not finite, or an error is above
            ``tolerance``.
    """
    if len(reference) != len(outputs) or not reference:
        raise ProofError(
            f"{runner} gives {len(outputs)} floating-point outputs, PyTorch {len(reference)}; "
            "nothing is shipped"
        )
    both = zip(reference, outputs, strict=True)
    error = max(_error(*pair, tolerance, runner) for pair in both)
    return Parity(relative_error=error, tolerance=tolerance, images=len(reference[0]))


def _error(reference: Tensor, output: Tensor, tolerance: float, runner: str) -> float:
    if reference.shape != output.shape:
        raise ProofError(
            f"{runner} gives outputs of shape {tuple(output.shape)}, "
            f"PyTorch {tuple(reference.shape)}"
        )
    if not (reference.isfinite().all() and output.isfinite().all()):
        raise ProofError(f"outputs of PyTorch or {runner} are not finite")
    reference, output = reference.double(), output.double()
    scale = float(reference.abs().max()) or 1.0  # all zeros: the error is then absolute
    relative_error = float((reference - output).abs().max()) / scale
    if relative_error > tolerance:
        raise ProofError(
            f"outputs of {runner} must be within {tolerance:g} of PyTorch's; "
            f"they are {relative_error:.2g} apart, so"
        )
    return relative_error
