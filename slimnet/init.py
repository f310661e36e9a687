"""A slimnet.toml to start from: every dial, commented out, with its unit and default."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from slimnet.errors import InputError
from slimnet.export.partial import partial_file
from slimnet.load import read_configuration
from slimnet.settings import Settings, rule_of

NAME = "slimnet.toml"
WIDTH = 98
HEAD = """\
# slimnet.toml: what the commands of slimnet, run in this folder, need not be told in words.
# An option of the command wins over this file. A line counts once the # before its name is gone;
# until then it shows the default or, where there is none, an example.
"""
BESIDE_DIALS: dict[str, tuple[str, Any]] = {
    "model": ("The network: .pt, .pth or .safetensors.", "model.pt"),
    "data": ("Images with labels: a folder, .npz, torchvision:NAME@ROOT, file.py:f.", "val/"),
    "out": ("Folder for the result. (default slim)", "slim"),
    "summary": ("File to which compress appends its verdict, as Markdown.", "summary.md"),
    "junit": ("File for a JUnit test case of each goal, budget and proof.", "slimnet.xml"),
    "json": ("File for a copy of report.json; - is stdout.", "report.json"),
    "quiet": ("Print the verdict's line only. (true or false; default false)", False),
    "progress": ("Show the progress on stderr. (true or false; default true)", True),
    "input_shape": ("Shape of one input, for inspect, apply and bench.", "3,224,224"),
    "sample": ("Channels that compare measures, at random. (a whole number; default all)", 200),
    "profile": ("Time every layer in bench, too. (true or false; default false)", False),
}
# for dials without a default; any other of these shows the least that it may be
EXAMPLES: dict[str, Any] = {
    "arch": "torchvision:resnet18",
    "arch_arg": ("num_classes=10",),
    "allow": ("package.module.Class",),
    "task": "task.py",
    "calibration_data": "train/",
    "size": 224,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.2, 0.2, 0.2),
    "scale": 0.00390625,
    "preprocess": "imagenet",
    "metrics": ("taylor_first_order", "taylor_second_order"),
    "keep": ("layer1.*",),
    "max_ratio": 0.5,
    "round_to": 8,
    "learning_rate": 0.01,
    "min_speedup": 1.5,
    "max_params": 1_000_000,
    "max_macs": 100_000_000,
    "max_bytes": 4_000_000,
    "max_latency_ms": 10.0,
    "baseline": "old/report.json",
    "max_regression": 2.0,
}


def write_configuration(folder: str | Path = ".", *, force: bool = False) -> Path:
    """Write a slimnet.toml with every dial commented out, and return its path.

    Args:
        folder: where it is put.
        force: replace a file that is there, and hide a table [tool.slimnet] of a pyproject.toml.

    Raises:
        InputError: one of these is there, or the file cannot be written.
    """
    path = Path(folder) / NAME
    if not force:
        _require_new(path)
    with partial_file(path) as temporary:
        temporary.write_text(configuration_text(), encoding="utf-8")
    return path


def configuration_text() -> str:
    """Return the text of that file; read back, it leaves every dial at its default."""
    beside = [(name, (told,), value) for name, (told, value) in BESIDE_DIALS.items()]
    dials = [(dial.name, _told(dial), _shown(dial)) for dial in fields(Settings)]
    # model, data and where to first: what most files will set
    entries = [*beside[:3], *dials, *beside[3:]]
    parts = [
        HEAD,
        *(_entry(told, name, value) for name, told, value in entries),
    ]
    return "\n".join(parts)


def _require_new(path: Path) -> None:
    if os.path.lexists(path):
        raise InputError(f"{path} is there already: edit it, or write it anew with --force")
    if read_configuration(path.parent):
        raise InputError(
            f"{path.with_name('pyproject.toml')} has a table [tool.slimnet], which would no longer "
            f"be read beside {NAME}: add to the table, or write the file all the same with --force"
        )


def _entry(told: Sequence[str], name: str, value: Any) -> str:
    wrapped = (line for text in told for line in textwrap.wrap(text, WIDTH))
    comment = "".join(f"# {line}\n" for line in wrapped)
    return f"{comment}#{name} = {_toml(value)}\n"


def _told(dial: Field[Any]) -> tuple[str, str]:
    """Return the dial's help, and what it may be with its default, in words."""
    default = f"default {_toml(dial.default)}" if _has_default(dial) else "not set by default"
    return dial.metadata["help"], f"({rule_of(dial)}; {default})"


def _has_default(dial: Field[Any]) -> bool:
    return dial.default is not None and dial.default != ()


def _shown(dial: Field[Any]) -> Any:
    """Return the default or, where there is none, an example."""
    if _has_default(dial):
        return dial.default
    rule = dial.metadata
    example = EXAMPLES.get(dial.name)
    if example is None and rule["choices"] and rule["kind"] is str:
        example = rule["choices"][0]
    if example is None:
        example = rule["kind"](max(0, rule["limits"][0])) if rule["kind"] is not str else "..."
    return (example,) if rule["many"] and not isinstance(example, tuple) else example


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # TOML writes text, numbers, true and false as JSON does
    return json.dumps(value, ensure_ascii=False)
