"""The table of runtimes: each run has a line for each batch size, and a column for each runtime."""

from __future__ import annotations

import runtimes


def latency(runtime, size, original, slim):
    ratio = original / slim
    return {"runtime": runtime, "batch_size": size, "original_ms": original, "slim_ms": slim,
            "speedup": [ratio, ratio - 0.1, ratio + 0.1]}  # fmt: skip


def test_times_stand_in_the_column_of_their_runtime_and_the_line_of_their_batch_size():
    shared = {"macs_ratio": 2.0, "drop_points": 4.04}
    both = [latency("onnxruntime-cpu", 1, 4.0, 2.0), latency("openvino-cpu", 1, 3.0, 1.0),
            latency("openvino-cpu", 32, 90.0, 30.0)]  # fmt: skip
    found = [
        {"network": "resnet32", "slimmed_for": "openvino", "latency": both[:2], **shared},
        {"network": "lenet5", "slimmed_for": "ort-cpu", "latency": both, **shared},
    ]
    header, _, *lines = runtimes.table(found).splitlines()
    assert header == (
        "| network | slimmed for | MACs ÷ | drop | batch | onnxruntime-cpu, ms | openvino-cpu, ms |"
    )
    first, second = "4 → 2 (÷ 2.00 [1.90, 2.10])", "3 → 1 (÷ 3.00 [2.90, 3.10])"
    assert lines == [
        f"| lenet5 | ort-cpu | 2.00 | 4.0 points | 1 | {first} | {second} |",
        "| lenet5 | ort-cpu | 2.00 | 4.0 points | 32 | – | 90 → 30 (÷ 3.00 [2.90, 3.10]) |",
        f"| resnet32 | openvino | 2.00 | 4.0 points | 1 | {first} | {second} |",
    ]
