"""One dial: what it may be, and what a user wrote turned into that."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import Field, field
from pathlib import Path
from typing import Any

from slimnet.errors import InputError


def dial(
    default: Any,
    kind: type,
    help_text: str,
    *,
    unit: str = "",
    limits: tuple[float, float] = (-math.inf, math.inf),
    choices: Sequence[str] = (),
    optional: bool = False,
    many: bool = False,
    repeat: bool = False,
) -> Any:
    """Declare a dial: the type of one value, what it may be, and whether it takes ``many``.

    Text must be one of ``choices``; a number may be one of these words instead. A ``repeat`` dial
    takes many values by one option each, else they stand between commas.
    """
    rule = {"kind": kind, "unit": unit, "limits": limits, "choices": choices}
    taking = {"optional": optional, "many": many or repeat, "repeat": repeat}
    return field(default=default, metadata={"help": help_text, **rule, **taking})


def as_given(dial: Field[Any], value: Any) -> Any:
    """Return what a user wrote in the dial's own form: many values for text with commas."""
    if isinstance(value, Path):
        value = str(value)
    if dial.metadata["kind"] is float and type(value) is int:
        return float(value)
    if dial.metadata["choices"] and dial.metadata["kind"] is int and isinstance(value, str):
        return int(value) if value.isdecimal() else value
    if dial.metadata["unit"] == "percent" and isinstance(value, str):
        return _percent(dial, value)
    if not dial.metadata["many"] or value is None:
        return value
    if isinstance(value, str):
        kind = dial.metadata["kind"]
        try:
            return tuple(kind(part) for part in value.split(",") if part.strip())
        except ValueError as error:
            raise InputError(f"{dial.name} is {rule_of(dial)}; got {value!r}") from error
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _percent(dial: Field[Any], text: str) -> float:
    try:
        return float(text.strip().removesuffix("%"))
    except ValueError:
        raise InputError(f"{dial.name} is {rule_of(dial)}; got {text!r}") from None


def require_fit(dial: Field[Any], value: Any) -> None:
    """Raise an InputError where a value is not what the dial may be; the message gives the rule."""
    if value is None and dial.metadata["optional"]:
        return
    parts = value if dial.metadata["many"] and isinstance(value, tuple) else (value,)
    if not parts and dial.default != ():
        raise InputError(f"{dial.name} is {rule_of(dial)}; got none")
    for part in parts:
        if not _fits(dial, part):
            brief = type(part) is float and dial.metadata["kind"] is float
            shown = f"{part:g}" if brief else repr(part)
            quoted = isinstance(part, str) and part.replace(".", "", 1).isdecimal()
            hint = ": leave the quotes out" * (quoted and dial.metadata["kind"] in (int, float))
            raise InputError(f"{dial.name} is {rule_of(dial)}; got {shown}{hint}")


def _fits(dial: Field[Any], part: Any) -> bool:
    kind, choices = dial.metadata["kind"], dial.metadata["choices"]
    if choices and (kind is str or isinstance(part, str)):
        return part in choices
    fits = type(part) is kind or (kind is float and type(part) is int)
    if kind not in (int, float):
        return fits
    low, high = dial.metadata["limits"]
    return fits and bool(low <= part <= high) and math.isfinite(part)


def rule_of(dial: Field[Any]) -> str:
    """Return what a dial may be, in words."""
    if dial.metadata["choices"] and dial.metadata["kind"] is str:
        return " or ".join(dial.metadata["choices"])
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    rule = names[dial.metadata["kind"]]
    if dial.metadata["unit"] == "percentage points":
        rule = "in percentage points"
    elif dial.metadata["unit"] == "percent":
        rule = "in percent, such as 2%"
    elif dial.metadata["unit"]:
        rule += f" of {dial.metadata['unit']}" if dial.metadata["kind"] is int else ""
    low, high = dial.metadata["limits"]
    if (low, high) != (-math.inf, math.inf):
        rule += f", {low:g} to {high:g}" if high < 1e12 else f", {low:g} or more"
    rule = ", or ".join((rule, *dial.metadata["choices"]))
    return "a list, each " + rule if dial.metadata["many"] else rule


def nearest(name: str, known: list[str]) -> str:
    """Return "; did you mean ...?" for a mistyped name, or what is known."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
