"""All runtimes, by the name that users write."""

from __future__ import annotations

from slimnet import options
from slimnet.errors import InputError
from slimnet.timing.onnx_runtime import CPU, OnnxRuntime
from slimnet.timing.openvino import OpenVino
from slimnet.timing.pytorch import PyTorch
from slimnet.timing.runtime import Runtime

_ALL: tuple[Runtime, ...] = (
    OnnxRuntime("ort-cpu", "onnxruntime-cpu", "cpu", CPU),
    OnnxRuntime("ort-cuda", "onnxruntime-cuda", "cuda", "CUDAExecutionProvider"),
    PyTorch("torch-cuda", "torch-cuda", "cuda", graphs=True),
    OpenVino("openvino", "openvino-cpu", "cpu"),
    PyTorch("torch-cpu", "torch-cpu", "cpu"),
    PyTorch("torch-compile-cpu", "torch-cpu-compiled", "cpu", compiled=True),
    PyTorch("torch-compile-cuda", "torch-cuda-compiled", "cuda", compiled=True),
)
RUNTIMES = {runtime.name: runtime for runtime in _ALL}


def available_runtimes() -> list[Runtime]:
    """Return the runtimes for the option ``runtime`` that this machine has all parts of."""
    choices = (RUNTIMES[name] for name in options.RUNTIMES if name in RUNTIMES)
    return [runtime for runtime in choices if not runtime.missing()]


def require_runtime(runtime: Runtime) -> None:
    """Check that this machine has all parts of a runtime.

    Raises:
        InputError: it has not; the message names what is missing.
    """
    missing = runtime.missing()
    if missing:
        there = " or ".join(each.name for each in available_runtimes())
        raise InputError(
            f"runtime is what this machine can time, {there}; got {runtime.name}, which needs "
            + " and ".join(missing)
        )
