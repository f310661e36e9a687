"""What ``compress`` tells and gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from slimnet.records.artefacts import Artefacts, Int8
from slimnet.records.measured import Drop, Latency, Parity, PredictionCheck, Size
from slimnet.records.plan import Frozen, Plan
from slimnet.records.trajectory import Trajectory


@dataclass(frozen=True)
class Goal:
    """What the user asked of the result, and what came of it.

    ``name`` is the dial's, or ``baseline_...`` for what is compared with an earlier report. ``got``
    is None where it was not measured, which counts as missed; ``unit`` says what both figures are.
    ``met`` means no more than ``wanted``, or no less where it is ``at_least`` that.
    """

    name: str
    wanted: float
    got: float | None
    unit: str
    met: bool
    at_least: bool = False


@dataclass(frozen=True)
class Report:
    """Everything that ``report.json`` holds, field by field; ``schema_version`` names its form.

    ``run_sha256`` is the hash of what the run read, its dials, versions and machine, where all of
    that can be told: a run with the same hash would end the same.
    """

    schema_version: int
    slimnet_version: str
    command: str
    source: str
    source_sha256: str | None
    plan_sha256: str
    settings: Mapping[str, Any]
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    frozen: tuple[Frozen, ...]
    channels_per_layer: Mapping[str, tuple[int, int]]
    trajectory: Trajectory
    original_size: Size
    slim_size: Size
    selection_drop: Drop
    test_drop: Drop
    masked_slim: Parity
    artefacts: Artefacts
    latency: tuple[Latency, ...]
    notes: tuple[str, ...]
    seconds: Mapping[str, float]
    prediction: PredictionCheck | None = None
    goals: tuple[Goal, ...] = ()
    int8: Int8 | None = None
    run_sha256: str | None = None


@dataclass(frozen=True)
class Result:
    """What ``compress`` gives back: the slim network, and where it was written (None: nowhere).

    It is ``earlier`` where the folder held it already, and nothing was done again.
    """

    model: nn.Module
    plan: Plan
    report: Report
    folder: Path | None
    earlier: bool = False
