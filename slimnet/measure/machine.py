"""Which processor and which software a measurement is true of."""

from __future__ import annotations

import platform
from pathlib import Path

import onnxruntime
import torch


def cpu_model(listing: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of this machine's processor, from Linux's listing where there is one."""
    try:
        lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"


def measured_on(runtime: str, threads: int) -> str:
    """Return in one line what timings on a runtime depend on, to tell machines apart."""
    library = f"torch {torch.__version__}"
    if not runtime.startswith("torch-"):
        library = f"onnxruntime {onnxruntime.__version__}"
    processor = torch.cuda.get_device_name() if runtime.endswith("-cuda") else cpu_model()
    return f"{runtime}, threads {threads}, {library}, {processor}"
