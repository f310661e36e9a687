"""An earlier report.json that a run must not fall behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from slimnet.errors import InputError
from slimnet.execution import measure_size
from slimnet.options import GoalOptions
from slimnet.records import Artefacts, Drop, Inputs, Latency, LoadedModel, Report, Size
from slimnet.report.json_report import record_from_json
from slimnet.timing import RUNTIMES


@dataclass(frozen=True)
class Baseline:
    """The fields of an earlier report that a new one is compared with, and its ``path``.

    ``latency`` holds only the timings on the runtime and at the batch size of the new run's goals.
    """

    schema_version: Literal[1]
    source_sha256: str | None
    environment: Mapping[str, Any]
    original_size: Size
    slim_size: Size
    test_drop: Drop
    artefacts: Artefacts
    latency: tuple[Latency, ...]
    path: str = ""


def read_baseline(options: GoalOptions, quantity: str) -> Baseline | None:
    """Return the report that the option ``baseline`` names, None without that option.

    Raises:
        InputError: it is no report of this schema version, its score is not ``quantity``, or it has
            no timing on the runtime, at the batch size and with the threads of these options.
    """
    if options.baseline is None:
        return None
    baseline = _read(options.baseline, options)
    if baseline.test_drop.quantity != quantity:
        raise InputError(
            f"the baseline must measure the same score; {baseline.path} measures the "
            f"{baseline.test_drop.quantity}, this run the {quantity}: take a report of the same "
            "task"
        )
    return baseline


def require_same_network(baseline: Baseline | None, loaded: LoadedModel, example: Inputs) -> None:
    """Refuse a baseline whose original network has other sizes; the model is not changed.

    Other weights are welcome: the network may have been trained anew.

    Raises:
        InputError: the sizes differ.
    """
    if baseline is None:
        return
    size, before = measure_size(loaded.model, example), baseline.original_size
    if size != before:
        raise InputError(
            f"the baseline must be of the same network; that of {baseline.path} had "
            f"{before.parameters:,} parameters and {before.macs:,} MACs before slimming, and this "
            f"one has {size.parameters:,} and {size.macs:,}: take a report of this network"
        )


def baseline_notes(report: Report, baseline: Baseline | None) -> tuple[str, ...]:
    """Return the reasons why the comparison is not exact, one sentence each."""
    if baseline is None:
        return ()
    notes = []
    if report.source_sha256 != baseline.source_sha256:
        notes.append("the baseline's network has the same sizes but was another file: new weights?")
    if report.test_drop.images != baseline.test_drop.images:
        notes.append(
            f"the baseline's drop was measured on {baseline.test_drop.images:,} test images, this "
            f"run's on {report.test_drop.images:,}: the drops may differ for that alone"
        )
    if report.environment.get("cpu") != baseline.environment.get("cpu"):
        notes.append(
            f"the baseline was timed on another processor ({baseline.environment.get('cpu')}): "
            "the speed-ups may differ for that alone"
        )
    return tuple(notes)


def _read(path: str, options: GoalOptions) -> Baseline:
    try:
        text = Path(path).read_text(encoding="utf-8")
        baseline = record_from_json(Baseline, text)
        return replace(baseline, path=path, latency=(_timing(baseline.latency, options),))
    except OSError as error:
        why = error.strerror or str(error)
    except ValueError as error:
        why = str(error)
    raise InputError(
        f"a baseline is the report.json of an earlier run; {path} cannot be read as one ({why}): "
        "name that file"
    )


def _timing(latency: tuple[Latency, ...], options: GoalOptions) -> Latency:
    runtime, batch_size = RUNTIMES[options.runtime], options.latency_batch[0]
    for entry in latency:
        if (entry.runtime, entry.batch_size) == (runtime.long_name, batch_size):
            if runtime.device == "cpu" and entry.threads != options.threads:
                raise ValueError(f"its threads were {entry.threads}, not {options.threads}")
            return entry
    raise ValueError(f"it holds no speed-up on {runtime.long_name} at batch {batch_size}")
