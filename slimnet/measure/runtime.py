"""The one way in which slimnet opens ONNX Runtime sessions for timing."""

from __future__ import annotations

from typing import Any

import onnxruntime
import torch

from slimnet.errors import InputError

PROVIDERS = {
    "onnxruntime-cpu": "CPUExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
}


def available_runtimes() -> list[str]:
    """Return the runtimes that this machine can time: CUDA where torch and ONNX Runtime have it."""
    listed = onnxruntime.get_available_providers()
    cuda = torch.cuda.is_available() and PROVIDERS["onnxruntime-cuda"] in listed
    return ["onnxruntime-cpu", "onnxruntime-cuda"] if cuda else ["onnxruntime-cpu"]


def require_runtime(runtime: str) -> None:
    """Check that this machine has the runtime; ONNX Runtime itself would quietly take the CPU.

    Raises:
        InputError: it does not.
    """
    if runtime not in available_runtimes():
        raise InputError(
            f"this machine has {', '.join(available_runtimes())}; got {runtime}, which needs a GPU "
            "that torch sees and the package onnxruntime-gpu"
        )


def session_options(threads: int) -> Any:
    """Return options for a fixed number of threads, one operator after the other, no log."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    # Idle threads of one session must not spin on the cores while the other is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options
