"""What the numbers were measured with: versions and processor, nothing that names a person."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from slimnet.measure import processor

PACKAGES = (
    "slimnet",
    "torch",
    "torchvision",
    "torch-pruning",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "numpy",
)


def environment() -> dict[str, Any]:
    """Return versions, processor, cores, GPU and platform; no host, user or path."""
    found: dict[str, Any] = {"python": platform.python_version()}
    for package in PACKAGES:
        found[package.replace("-", "_")] = _version(package)
    found["torch"] = str(torch.__version__)  # with the build: +cpu, +cu130
    found["platform"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    found["cpu"] = processor()
    found["cores"] = _usable_cores()
    found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
