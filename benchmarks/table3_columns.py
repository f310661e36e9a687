"""The columns of table3.py: their headings, and the options of their searches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimnet.options import PAPER_METRICS

FULL_ORACLE = "full_oracle"
CANDIDATES = (5, 8, 12, 16)
HEADINGS = {
    "mean_square_weight": "weight²",
    "mean_activation": "activation",
    "mean_gradient": "gradient",
    "taylor_first_order": "Taylor 1",
    "taylor_second_order": "Taylor 2",
}
PAPERS_SCHEME: dict[str, Any] = {"step": 1, "repair": False}


@dataclass(frozen=True)
class Column:
    """The heading of a column, and the options of its searches besides the row's own."""

    heading: str
    changes: Mapping[str, Any]


SINGLE = {
    metric: Column(HEADINGS[metric], {**PAPERS_SCHEME, "metrics": (metric,), "oracle_k": 1})
    for metric in PAPER_METRICS
}
MYOPIC = {f"myopic_{k}": Column(f"k = {k}", {**PAPERS_SCHEME, "oracle_k": k}) for k in CANDIDATES}
OURS = {
    "slimnet_params": Column("slimnet, params", {"objective": "params"}),
    "slimnet_latency": Column("slimnet, latency", {}),
}
COLUMNS = {
    **SINGLE,
    **MYOPIC,
    FULL_ORACLE: Column("all", PAPERS_SCHEME),  # oracle_k is the number of units
    **OURS,
}
