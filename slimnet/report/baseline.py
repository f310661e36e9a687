"""An earlier report.json that a run is compared with: read and refused before any work."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimnet.errors import InputError
from slimnet.measure import measure_size
from slimnet.records import Inputs, LoadedModel, Report, Size
from slimnet.settings import RUNTIMES, Settings

FORM = 1


@dataclass(frozen=True)
class Baseline:
    """What an earlier run came to; ``slim_bytes`` are those of slim.onnx.

    ``speedup_low`` is the lower end of the 95 % interval, at the batch size and on the runtime that
    goals are judged at. No time is kept: times differ from machine to machine.
    """

    path: str
    source_sha256: str | None
    quantity: str
    drop_points: float
    test_images: int
    original_size: Size
    slim_size: Size
    slim_bytes: int
    speedup_low: float
    cpu: str


def read_baseline(settings: Settings, quantity: str) -> Baseline | None:
    """Return what ``settings.baseline`` tells, or None where there is none.

    Raises:
        InputError: it is no report that this version can read, of another ``quantity``, or without
            a speed-up at the same batch size, runtime and threads.
    """
    if settings.baseline is None:
        return None
    found = _parsed(settings.baseline, settings)
    if found.quantity != quantity:
        raise InputError(
            f"the baseline must tell of the same score; {found.path} tells of the "
            f"{found.quantity}, this run of the {quantity}: take a report of the same task"
        )
    return found


def require_same_network(baseline: Baseline | None, loaded: LoadedModel, example: Inputs) -> None:
    """Refuse a baseline whose original has other sizes than this one; the model is not changed.

    Other weights of the same network are welcome: it may have been trained anew.

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
            f"one has {size.parameters:,} and {size.macs:,}: take a report of this"
        )


def baseline_notes(report: Report, baseline: Baseline | None) -> tuple[str, ...]:
    """Return what makes the comparison less than exact, one sentence each."""
    if baseline is None:
        return ()
    notes = []
    if report.source_sha256 != baseline.source_sha256:
        notes.append("the baseline's network has the same sizes but was another file: new weights?")
    if report.test_drop.images != baseline.test_images:
        notes.append(
            f"the baseline's drop was measured on {baseline.test_images:,} test images, this run's "
            f"on {report.test_drop.images:,}: other images can differ for that alone"
        )
    if report.environment.get("cpu") != baseline.cpu:
        notes.append(
            f"the baseline was timed on another processor ({baseline.cpu}): speed-ups may differ "
            "for that alone"
        )
    return tuple(notes)


def _parsed(path: str, settings: Settings) -> Baseline:
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
        if told["schema_version"] != FORM:
            raise ValueError(f"it is of form {told['schema_version']}, not {FORM}")
        return _baseline(path, told, _latency(told, settings))
    except OSError as error:
        why = error.strerror or str(error)
    except KeyError as error:
        why = f"it has no {error}"
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        why = str(error).splitlines()[0]
    raise InputError(
        f"a baseline is the report.json of an earlier run; {path} cannot be read as one ({why}): "
        "name that file"
    )


def _baseline(path: str, told: Mapping[str, Any], latency: Mapping[str, Any]) -> Baseline:
    drop, digest = told["test_drop"], told["source_sha256"]
    return Baseline(
        path=path,
        source_sha256=None if digest is None else str(digest),
        quantity=str(drop["quantity"]),
        drop_points=_number(drop, "points"),
        test_images=int(_number(drop, "images")),
        original_size=_size(told["original_size"]),
        slim_size=_size(told["slim_size"]),
        slim_bytes=int(_number(told["artefacts"]["slim_onnx"], "bytes")),
        speedup_low=_number(latency, "speedup_low"),
        cpu=str(told["environment"].get("cpu")),
    )


def _latency(told: Mapping[str, Any], settings: Settings) -> Mapping[str, Any]:
    where = (RUNTIMES[settings.runtime], settings.latency_batch[0])
    for entry in told["latency"]:
        if (entry["runtime"], entry["batch_size"]) == where:
            if where[0].endswith("cpu") and entry["threads"] != settings.threads:
                raise ValueError(
                    f"its threads were {entry['threads']}, and this run's are {settings.threads}"
                )
            return dict(entry)
    raise ValueError(f"it holds no speed-up on {where[0]} at batch {where[1]}")


def _size(told: Mapping[str, Any]) -> Size:
    return Size(*(int(_number(told, name)) for name in ("parameters", "conv_weights", "macs")))


def _number(told: Mapping[str, Any], name: str) -> float:
    value = told[name]
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"its {name} is no number")
    return float(value) if type(value) is float else int(value)
