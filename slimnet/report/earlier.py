"""The result of an earlier run of the very same: it is taken as it is, if nobody touched it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from slimnet.errors import SlimnetError
from slimnet.export import require_intact
from slimnet.records import Report
from slimnet.report.environment import environment
from slimnet.report.read import record_from
from slimnet.settings import Settings


def run_sha256(content_sha256: str | None, settings: Settings) -> str | None:
    """Return one hash of what a run reads, its dials, the versions and the machine, or None."""
    if content_sha256 is None:
        return None
    # whether an earlier result may be taken changes nothing in it
    dials = {name: value for name, value in settings.as_dict().items() if name != "cache"}
    plain = json.dumps([content_sha256, dials, environment()], sort_keys=True, default=str)
    return hashlib.sha256(plain.encode()).hexdigest()


def earlier_report(folder: Path, run: str | None) -> Report | None:
    """Return the report in a finished folder, if it is of this very run and its files are whole.

    Nothing is changed. Whatever cannot be read is no earlier result.
    """
    if run is None or not (folder / "report.html").is_file():
        return None
    try:
        told = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        if told["run_sha256"] != run:
            return None
        found = record_from(Report, told)
        require_intact(folder, found.artefacts.sha256)
    except (OSError, SlimnetError, ValueError, KeyError, TypeError, AttributeError):
        return None
    assert isinstance(found, Report)
    return found
