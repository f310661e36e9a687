"""Proof that two executions of one network agree: PyTorch against what was written to disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

from slimnet.errors import ProofError
from slimnet.export.tracing import evaluation_copy, first_line
from slimnet.measure import forward, input_tensors, output_tensors
from slimnet.records import Inputs, Parity


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
        expected = output_tensors(forward(evaluation_copy(model), inputs))
    return compare_outputs(expected, _run_onnx(path, inputs), tolerance, "ONNX Runtime")


def compare_outputs(
    expected: Sequence[Tensor], actual: Sequence[Tensor], tolerance: float, runner: str
) -> Parity:
    """Return how far all outputs (images, ...) are apart; ``runner`` gave the second ones.

    The error is the largest of any output, each as a share of its own scale.

    Raises:
        ProofError: their number or shapes differ, a value is not finite, or an error is above
            ``tolerance``.
    """
    if len(expected) != len(actual) or not expected:
        raise ProofError(
            f"{runner} gives {len(actual)} floating-point outputs, PyTorch {len(expected)}; "
            "nothing is shipped"
        )
    both = zip(expected, actual, strict=True)
    error = max(_error(one, other, tolerance, runner) for one, other in both)
    return Parity(relative_error=error, tolerance=tolerance, images=len(expected[0]))


def _error(expected: Tensor, actual: Tensor, tolerance: float, runner: str) -> float:
    if expected.shape != actual.shape:
        raise ProofError(
            f"{runner} gives outputs of shape {tuple(actual.shape)}, "
            f"PyTorch {tuple(expected.shape)}; nothing is shipped"
        )
    if not (expected.isfinite().all() and actual.isfinite().all()):
        raise ProofError(f"outputs of PyTorch or {runner} are not finite; nothing is shipped")
    expected, actual = expected.double(), actual.double()
    scale = float(expected.abs().max()) or 1.0  # all zeros: the error is then absolute
    relative_error = float((expected - actual).abs().max()) / scale
    if relative_error > tolerance:
        raise ProofError(
            f"outputs of {runner} must be within {tolerance:g} of PyTorch's; "
            f"they are {relative_error:.2g} apart, so nothing is shipped"
        )
    return relative_error


def _run_onnx(path: Path, inputs: Inputs) -> tuple[Tensor, ...]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        names = [wanted.name for wanted in session.get_inputs()]
        arrays = [tensor.contiguous().numpy() for tensor in input_tensors(inputs)]
        given = session.run(None, dict(zip(names, arrays, strict=True)))
        return output_tensors([torch.from_numpy(array) for array in given])
    except Exception as error:  # onnxruntime raises many unrelated classes
        raise ProofError(f"ONNX Runtime cannot run {path.name}: {first_line(error)}") from error
