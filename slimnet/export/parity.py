"""Proof that two executions of one network agree: PyTorch against what was written to disk."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

from slimnet.errors import ProofError
from slimnet.export.tracing import evaluation_copy, first_line
from slimnet.records import Parity


def onnx_parity(model: nn.Module, path: Path, inputs: Tensor, tolerance: float = 1e-4) -> Parity:
    """Run the ONNX file on ONNX Runtime's CPU and compare; does not change the model.

    Args:
        model: the network that the file should be.
        path: the ONNX file.
        inputs: preprocessed images (images, ...).
        tolerance: largest difference allowed, as a share of the largest PyTorch output.

    Raises:
        ProofError: the file does not run, or its outputs are not the network's.
    """
    with torch.no_grad():
        expected = evaluation_copy(model)(inputs)
    return compare_outputs(expected, _run_onnx(path, inputs), tolerance, "ONNX Runtime")


def compare_outputs(expected: Tensor, actual: Tensor, tolerance: float, runner: str) -> Parity:
    """Return how far two outputs (images, ...) are apart; ``runner`` names the second one.

    Raises:
        ProofError: shapes differ, a value is not finite, or the error is above ``tolerance``.
    """
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
    return Parity(relative_error=relative_error, tolerance=tolerance, images=len(expected))


def _run_onnx(path: Path, inputs: Tensor) -> Tensor:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        feed = {session.get_inputs()[0].name: inputs.contiguous().numpy()}
        return torch.from_numpy(session.run(None, feed)[0])
    except Exception as error:  # onnxruntime raises many unrelated classes
        raise ProofError(f"ONNX Runtime cannot run {path.name}: {first_line(error)}") from error
