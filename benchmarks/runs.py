"""The runs of a benchmark in one JSON file, from which an interrupted benchmark continues."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Run = dict[str, Any]


def read_runs(file: Path) -> list[Run]:
    """Return the runs of a file; none if the file does not exist yet."""
    return list(_read(file)["runs"])


def done(file: Path, names: Sequence[str]) -> set[tuple[Any, ...]]:
    """Return the values of these fields for each finished run."""
    return {tuple(run[name] for name in names) for run in read_runs(file)}


def add_run(file: Path, run: Run, environment: Mapping[str, Any]) -> None:
    """Add a run to a file. The file has each environment once, and a run has its number.

    The file is replaced as a whole, so an interruption leaves the earlier file.
    """
    content = _read(file)
    if environment not in content["environments"]:
        content["environments"].append(environment)
    content["runs"].append({**run, "environment": content["environments"].index(environment)})
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(_text(content), encoding="utf-8")
    os.replace(temporary, file)


def mean_and_spread(values: Iterable[float], digits: int = 0) -> str:
    """Return "29 ± 5", mean and sample standard deviation; no ± for one value, "–" for none."""
    found = list(values)
    if not found:
        return "–"
    text = f"{mean(found):.{digits}f}"
    return text if len(found) == 1 else f"{text} ± {stdev(found):.{digits}f}"


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def basis(by_title: Mapping[str, Sequence[Run]]) -> str:
    """Return the number of seeds and images of the runs, networks with equal ones together."""
    alike: dict[str, list[str]] = {}
    for title, own in by_title.items():
        for images in {tuple(run["images"].items()): None for run in own if "images" in run}:
            counts = ", ".join(f"{count} for {name}" for name, count in images)
            alike.setdefault(counts, []).append(title)
    count = len({run["seed"] for own in by_title.values() for run in own})
    seeds = f"Mean ± standard deviation over {count} seeds" if count > 1 else "One seed"
    parts = [f"{'; '.join(titles)}: images {counts}" for counts, titles in alike.items()]
    return ". ".join([seeds, *parts]) + "." if parts else ""


def _read(file: Path) -> dict[str, list[Any]]:
    if not file.exists():
        return {"environments": [], "runs": []}
    found: dict[str, list[Any]] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _text(content: Mapping[str, Sequence[Any]]) -> str:
    parts = []
    for name, entries in content.items():
        lines = ",\n".join(json.dumps(entry, allow_nan=False) for entry in entries)
        parts.append(f'"{name}": [\n{lines}\n]')
    return "{" + ",\n".join(parts) + "}\n"
