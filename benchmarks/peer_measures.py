"""The size of a pruned network, and its speed in ONNX Runtime, for peers.py."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import paper
from torch import nn

from slimnet import execution, export, timing
from slimnet.options import Options

BATCH_SIZES = (1, 32)
THREADS = 1


def sizes(subject: paper.Subject, slim: nn.Module) -> dict[str, float]:
    """Return the shares of weights removed, in percent, and the ratio of MACs before and after."""
    before, after = (execution.measure_size(m, subject.example) for m in (subject.model, slim))
    return {
        "conv_weights_removed_percent": round(
            100 * (1 - after.conv_weights / before.conv_weights), 3
        ),
        "parameters_removed_percent": round(100 * (1 - after.parameters / before.parameters), 3),
        "macs_ratio": round(before.macs / after.macs, 4),
    }


def latency(subject: paper.Subject, slim: nn.Module, run_options: Options) -> dict[str, Any]:
    """Return timings in ONNX Runtime on the CPU, by batch size; original and slim run in turns."""
    example = subject.example
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("original.onnx", "slim.onnx")]
        for network, file in zip((subject.model, slim), files, strict=True):
            export.write_onnx(export.translate(network, example, run_options.opset), file, {})
        pair = (timing.TimedNetwork(files[0]), timing.TimedNetwork(files[1]))
        timed = timing.measure_latency(
            timing.RUNTIMES["ort-cpu"], pair, example, BATCH_SIZES,
            replace(run_options, threads=THREADS),
        )  # fmt: skip
    return {
        str(t.batch_size): {
            "original_ms": round(t.original_median_ms, 4),
            "slim_ms": round(t.slim_median_ms, 4),
            "speedup": [round(x, 3) for x in (t.speedup, t.speedup_low, t.speedup_high)],
        }
        for t in timed
    }
