"""The processor that a measurement is true of."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

LISTING = Path("/proc/cpuinfo")


def processor() -> str:
    """Return the processor's name and the vector instructions that torch finds in it.

    The name alone may be that of several generations ("AMD EPYC"). Some of these compute 8
    channels at once and others 16.
    """
    return f"{cpu_model()}, {torch.backends.cpu.get_cpu_capability()}"


def cpu_model(listing: Path = LISTING) -> str:
    """Return the name of this machine's processor, from Linux's listing where there is one."""
    return _listed("model name", listing) or platform.processor() or "unknown"


def is_arm() -> bool:
    """Return whether the processor is an ARM."""
    return platform.machine().lower().startswith(("arm", "aarch"))


def knows_vnni(listing: Path = LISTING) -> bool:
    """Return whether the processor is known to sum products of int8 without saturation (VNNI)."""
    return "vnni" in _listed("flags", listing)


def _listed(entry: str, listing: Path) -> str:
    """Return an entry of the first processor in Linux's listing, "" where there is none."""
    try:
        lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((x.partition(":")[2].strip() for x in lines if x.startswith(entry)), "")
