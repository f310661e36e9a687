"""Every dial of slimnet, with its unit and default: the options of the command and the call."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from slimnet.errors import InputError

PAPER_METRICS = (
    "mean_square_weight",
    "mean_activation",
    "mean_gradient",
    "taylor_first_order",
    "taylor_second_order",
)


OBJECTIVES = ("latency", "params", "macs", "channels")
RUNTIMES = {"ort-cpu": "onnxruntime-cpu", "ort-cuda": "onnxruntime-cuda"}


def _dial(default: Any, help_text: str, *, item: type | None = None, repeat: bool = False) -> Any:
    """Declare a dial. ``item``: type of one value of a list; ``repeat``: one option a value."""
    return field(default=default, metadata={"help": help_text, "item": item, "repeat": repeat})


@dataclass(frozen=True)
class Settings:
    """The dials. Each may stand in ``slimnet.toml`` under its own name.

    Raises:
        InputError: a value is outside its range; the message gives the range.
    """

    max_drop: float = _dial(5.0, "Accuracy that may be lost, in percentage points.")
    confidence: float = _dial(
        0.95,
        "How sure the drop must be within the budget, one-sided; 0.5 takes the plain estimate.",
    )
    arch: str | None = _dial(
        None,
        "What builds the network for a state dict: torchvision:resnet18, pkg.mod:f, file.py:f.",
    )
    arch_arg: tuple[str, ...] = _dial(
        (), "NAME=VALUE for --arch, e.g. num_classes=10; repeatable.", item=str, repeat=True
    )
    allow: tuple[str, ...] = _dial(
        (), "A class that the model file may hold, package.module.Class; repeatable.",
        item=str, repeat=True,
    )  # fmt: skip
    trust_pickle: bool = _dial(
        False, "Run whatever code the model file holds. Only for files that you made yourself."
    )
    calibration_data: str | None = _dial(
        None, "Images the network was trained on, for saliency and oracle; forms as for --data."
    )
    calibration_images: int = _dial(512, "Images for saliency and oracle, at most.")
    size: int | None = _dial(None, "Resize the short side and crop to this many pixels.")
    mean: tuple[float, ...] | None = _dial(
        None, "Subtract these per channel, after scaling: 0.5,0.5,0.5.", item=float
    )
    std: tuple[float, ...] | None = _dial(
        None, "Divide by these per channel, after the mean: 0.2,0.2,0.2.", item=float
    )
    channels: str = _dial("rgb", "Order of the colour channels that the network wants: rgb or bgr.")
    scale: float | None = _dial(
        None, "Multiply pixels by this; 1/255 for integer pixels, 1 for floats, if not given."
    )
    preprocess: str | None = _dial(
        None, "imagenet, or file.py:callable from one image (C, H, W) to one input."
    )
    batch_size: int = _dial(128, "Images that pass the network at once.")
    metrics: tuple[str, ...] = _dial(
        PAPER_METRICS, "Saliency metrics that propose channels, in turn.", item=str
    )
    objective: str | None = _dial(
        None, "What a step should save for its loss: latency (if not given), params, macs, or "
        "channels as in the paper (if not given, with --step).",
    )  # fmt: skip
    runtime: str = _dial("ort-cpu", "Where latency counts: ort-cpu or ort-cuda.")
    oracle_k: int = _dial(16, "Candidates that the oracle measures at each step.")
    step: int | None = _dial(
        None, "Channels per step, at first; 1 is the paper's scheme. Not given: 4 % of all."
    )
    repair: bool = _dial(
        True, "Repair the layers that read what was removed, in closed form, in every trial."
    )
    layers: str = _dial(
        "auto", "What may lose channels: conv, all (linear layers too), auto (all if no conv can)."
    )
    seed: int = _dial(0, "Seed of every random choice.")
    opset: int = _dial(20, "ONNX operator-set version to write.")
    threads: int = _dial(1, "Threads that ONNX Runtime may use while latency is measured.")
    latency_batch: tuple[int, ...] = _dial(
        (1, 32), "Batch sizes at which latency is measured.", item=int
    )
    latency_samples: int = _dial(40, "Timings of each network at each batch size.")

    def __post_init__(self) -> None:
        _require(self, "max_drop", 0, 100, "is in percentage points")
        _require(self, "confidence", 0.5, 0.999, "is a probability")
        _require(self, "opset", 18, 23, "is an ONNX operator-set version")
        _require(self, "seed", 0, 2**63 - 1, "is a whole number")
        for name, unit in (
            ("calibration_images", "images"),
            ("batch_size", "images"),
            ("oracle_k", "candidates"),
            ("threads", "threads"),
            ("latency_samples", "timings"),
            ("step", "channels"),
            ("size", "pixels"),
            ("latency_batch", "images"),
        ):
            _require(self, name, 1, math.inf, f"is a whole number of {unit}")
        _require_one_of("channels", self.channels, ("rgb", "bgr"))
        if self.objective is not None:
            _require_one_of("objective", self.objective, OBJECTIVES)
        _require_one_of("runtime", self.runtime, tuple(RUNTIMES))
        _require_one_of("layers", self.layers, ("auto", "conv", "all"))
        if not self.metrics:
            raise InputError("metrics names at least one saliency metric; got none")

    def changed(self, changes: Mapping[str, Any]) -> Settings:
        """Return a copy with some dials changed; a list may come as text with commas.

        Raises:
            InputError: a name is not a dial (the message gives the nearest one), or a value is
                of the wrong type or outside its range.
        """
        known = {f.name: f for f in fields(self)}
        values: dict[str, Any] = {}
        for name, value in changes.items():
            if name not in known:
                raise InputError(f"unknown setting {name!r}{nearest(name, list(known))}")
            item = known[name].metadata["item"]
            values[name] = _as_items(name, value, item) if item and value is not None else value
        return replace(self, **values)

    def as_dict(self) -> dict[str, Any]:
        """Return the dials as plain values, for the report."""
        return asdict(self)


def nearest(name: str, known: list[str]) -> str:
    """Return "; did you mean ...?" for a mistyped name, or what is known."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def _as_items(name: str, value: Any, item: type) -> tuple[Any, ...]:
    if isinstance(value, (str, Path)):
        value = [part.strip() for part in str(value).split(",") if part.strip()]
    elif isinstance(value, (int, float)):
        value = [value]
    try:
        return tuple(item(part) for part in value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is a list of {item.__name__}s like 1,2,3; got {value}") from error


def _require(settings: Settings, name: str, low: float, high: float, rule: str) -> None:
    value = getattr(settings, name)
    default = next(f.default for f in fields(settings) if f.name == name)
    whole = not isinstance(default, float)
    limits = f"{low:g} to {high:g}" if high < 2**62 else f"{low:g} or more"
    for part in value if isinstance(value, tuple) else (value,):
        if part is None and default is None:
            continue
        is_number = isinstance(part, (int, float)) and not isinstance(part, bool)
        if not is_number or not low <= part <= high or (whole and part != int(part)):
            raise InputError(f"{name} {rule}, {limits}; got {part}")


def _require_one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {' or '.join(choices)}; got {value!r}")
