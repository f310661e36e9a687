"""What peers.py measures of a pruned network: how small it is, and how fast in ONNX Runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import paper
from torch import nn

from slimnet import export, measure
from slimnet.settings import Settings

BATCH_SIZES = (1, 32)
THREADS = 1


def sizes(subject: paper.Subject, slim: nn.Module) -> dict[str, float]:
    """Return what is gone of the network, in percent, and by what its MACs were divided."""
    before, after = (measure.measure_size(m, subject.example) for m in (subject.model, slim))
    return {
        "conv_weights_removed_percent": round(
            100 * (1 - after.conv_weights / before.conv_weights), 3
        ),
        "parameters_removed_percent": round(100 * (1 - after.parameters / before.parameters), 3),
        "macs_ratio": round(before.macs / after.macs, 4),
    }


def latency(subject: paper.Subject, slim: nn.Module, settings: Settings) -> dict[str, Any]:
    """Return timings in ONNX Runtime on the CPU by batch size, original and slim in turns."""
    example = subject.example
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("original.onnx", "slim.onnx")]
        for network, file in zip((subject.model, slim), files, strict=True):
            export.export_onnx(network, example, file, settings.opset, {})
        timed = measure.measure_latency(
            files[0], files[1], example, BATCH_SIZES, THREADS, settings.latency_samples,
            seed=settings.seed,
        )  # fmt: skip
    return {
        str(t.batch_size): {
            "original_ms": round(t.original_median_ms, 4),
            "slim_ms": round(t.slim_median_ms, 4),
            "speedup": [round(x, 3) for x in (t.speedup, t.speedup_low, t.speedup_high)],
        }
        for t in timed
        if t.runtime == "onnxruntime-cpu"
    }
