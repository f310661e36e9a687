"""The report as JSON: every record, as plain values."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from slimnet.export.partial import partial_file
from slimnet.records import Application, Report


def report_as_dict(report: Report | Application) -> dict[str, Any]:
    """Return the report as plain JSON values; does not change it.

    Paths become file names; a number that is not finite becomes None.
    """
    return {
        field.name: as_plain(getattr(report, field.name)) for field in dataclasses.fields(report)
    }


def report_json(report: Report | Application) -> str:
    """Return the text of report.json; does not change the report."""
    text = json.dumps(report_as_dict(report), indent=1, ensure_ascii=False, allow_nan=False)
    return text + "\n"


def save_report(report: Report | Application, path: Path) -> None:
    """Write the report as JSON.

    Raises:
        InputError: the file cannot be written.
    """
    with partial_file(path) as temporary:
        temporary.write_text(report_json(report), encoding="utf-8")


def as_plain(value: Any) -> Any:
    """Return a record, or whatever one holds, as plain JSON values; does not change it."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, PurePath):
        return value.name
    if dataclasses.is_dataclass(value):
        return {
            field.name: as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): as_plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(entry) for entry in value]
    if isinstance(value, (set, frozenset)):
        return sorted((as_plain(entry) for entry in value), key=str)
    return str(value)
