"""What slimnet can time networks on, and the one way in which ONNX Runtime is opened for it."""

from __future__ import annotations

from typing import Any

import onnxruntime
import torch

from slimnet.errors import InputError
from slimnet.settings import RUNTIMES

PROVIDERS = {
    "onnxruntime-cpu": "CPUExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
}


# what two given networks can be timed on, beside what a search can count time on
TIMED_RUNTIMES = RUNTIMES | {
    "torch-cpu": "torch-cpu",
    "torch-compile-cpu": "torch-cpu-compiled",
    "torch-compile-cuda": "torch-cuda-compiled",
}


def available_runtimes() -> list[str]:
    """Return the runtimes that this machine can time: on CUDA where everything for it is there."""
    return [runtime for runtime in RUNTIMES.values() if not missing_for(runtime)]


def require_runtime(runtime: str) -> None:
    """Check that this machine has the runtime; ONNX Runtime itself would quietly take the CPU.

    Raises:
        InputError: it does not; the message names what is missing.
    """
    missing = missing_for(runtime)
    if missing:
        options = {name: option for option, name in RUNTIMES.items()}
        there = " or ".join(options[name] for name in available_runtimes())
        raise InputError(
            f"runtime is what this machine can time, {there}; got {options[runtime]}, which needs "
            + " and ".join(missing)
        )


def missing_for(runtime: str) -> list[str]:
    """Return what this machine lacks for a runtime, in words."""
    missing = []
    if "-cuda" in runtime and not torch.cuda.is_available():
        missing.append("a GPU that PyTorch sees (torch.cuda.is_available() is false)")
    if PROVIDERS.get(runtime, "") not in ("", *onnxruntime.get_available_providers()):
        missing.append("the package onnxruntime-gpu in place of onnxruntime")
    return missing


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


def open_session(model: str | bytes, runtime: str, options: Any) -> Any:
    """Return a session for an ONNX file's path or content that really runs on the runtime.

    Raises:
        InputError: ONNX Runtime fell back to the CPU, because libraries of CUDA are missing.
    """
    session = onnxruntime.InferenceSession(model, options, providers=[PROVIDERS[runtime]])
    if session.get_providers()[0] != PROVIDERS[runtime]:
        raise InputError(
            f"ONNX Runtime has {PROVIDERS[runtime]} but cannot start it, most often because a "
            "library of CUDA or cuDNN is missing or of another version; install it, or choose "
            "another runtime"
        )
    return session
