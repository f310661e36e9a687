"""The table of the paper's networks."""

from __future__ import annotations

import paper_networks


def row(mode, seed, removed):
    return {
        "network": "lenet5",
        "mode": mode,
        "seed": seed,
        "conv_weights_removed_percent": removed,
        "macs_ratio": 2.0,
        "selection_drop_points": 4.0,
        "test_drop_points": 5.0,
        "speedup": {"1": [3.0, 2.9, 3.1], "32": [2.0 + seed, 1.9, 2.1]},
        "search_seconds": 11.4,
    }


def test_a_line_for_each_mode_and_its_spread_over_seeds():
    lines = paper_networks.table(
        [row("params", 0, 83), row("latency", 0, 70), row("latency", 1, 72)]
    )
    best = "29 ± 5 %"
    assert lines.splitlines()[2:] == [
        f"| lenet5 | latency | 71 ± 1 % | {best} | 2.00 ± 0.00 | 4.0 ± 0.0 / 5.0 ± 0.0 points "
        "| 3.00 ± 0.00 / 2.50 ± 0.71 | 11 ± 0 s |",
        f"| lenet5 | params | 83 % | {best} | 2.00 | 4.0 / 5.0 points | 3.00 / 2.00 | 11 s |",
    ]
