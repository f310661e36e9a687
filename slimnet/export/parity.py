"""Proof that two executions of one network agree: PyTorch and a file that was written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from slimnet.errors import ProofError
from slimnet.export.tracing import deepest_cause, evaluation_copy
from slimnet.records import Inputs, Parity
from slimnet.tasks import forward, input_tensors, output_tensors
from slimnet.timing import OnnxNetwork


def onnx_parity(model: nn.Module, path: Path, inputs: Inputs, tolerance: float = 1e-4) -> Parity:
    """Run the ONNX file on ONNX Runtime's CPU and compare; does not change the model.

    Args:
        model: the network that the file should be.
        path: the ONNX file.
        inputs: preprocessed images (images, ...), for each input of the network.
        tolerance: largest difference allowed, as a share of the largest PyTorch output.

    Raises:
        ProofError: the file does not run, or its outputs are not the network's.
    """
    with torch.no_grad():
        reference = output_tensors(forward(evaluation_copy(model), inputs))
    try:
        outputs = output_tensors(OnnxNetwork(path).run(input_tensors(inputs)))
    except ProofError:
        raise
    except Exception as error:  # onnxruntime raises many unrelated classes
        reason = deepest_cause(error)
        raise ProofError(f"ONNX Runtime cannot run {path.name}: {reason}") from error
    return compare_outputs(reference, outputs, tolerance, "ONNX Runtime")


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
