"""A comparison of metrics as JSON, and as files in a folder."""

from __future__ import annotations

import json
from pathlib import Path

from slimnet.errors import InputError
from slimnet.export.folder import require_writable_parent, writing
from slimnet.export.partial import partial_file
from slimnet.records import Comparison
from slimnet.report.json_report import as_plain

JSON_FILE, PLOT_FILE = "compare.json", "compare.svg"


def comparison_json(comparison: Comparison) -> str:
    """Return the comparison as one JSON document, without a line end; does not change it."""
    return json.dumps(as_plain(comparison), indent=1, allow_nan=False)


def check_comparison_folder(folder: Path) -> None:
    """Refuse a folder that cannot take the files; writes nothing. Call before long work.

    Raises:
        InputError: it is a file, holds anything but an earlier comparison, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"the output must be a folder; {folder} is a file: choose another name")
    others = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    if others - {JSON_FILE, PLOT_FILE}:
        raise InputError(
            f"the output folder must be new, empty or an earlier comparison; {folder} holds "
            "something else: choose another name"
        )
    require_writable_parent(folder / JSON_FILE if folder.exists() else folder)


def save_comparison(comparison: Comparison, folder: Path) -> None:
    """Write compare.json and compare.svg.

    Raises:
        InputError: they cannot be written.
    """
    # matplotlib takes a second to import: only where it is used
    from slimnet.report.comparison_plot import comparison_plot

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    texts = {JSON_FILE: comparison_json(comparison) + "\n", PLOT_FILE: comparison_plot(comparison)}
    for name, text in texts.items():
        with partial_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
