"""Options from the dials of Settings: one way for every command."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container
from dataclasses import fields
from typing import Annotated, Any, get_type_hints

import typer

from slimnet.cli.chosen import NONE
from slimnet.settings import Settings

ModelArgument = Annotated[
    str | None,
    typer.Argument(help="Model file: .pt, .pth or .safetensors. (default: none, must be given)"),
]
InputShapeOption = Annotated[
    str | None, typer.Option(help="Shape of one input, such as 3,224,224. (default: guessed)")
]

JsonOption = Annotated[
    bool | None, typer.Option("--json", help="Print one JSON document instead. (default: off)")
]
DataOption = Annotated[
    str | None,
    typer.Option(
        help="Images with labels: a folder, .npz, torchvision:NAME@ROOT, file.py:f. "
        "(default: none, must be given)"
    ),
]


ONE_WAY = ("trust_pickle",)  # so long a --no- form would leave the help's text no room


def with_settings(
    function: Callable[..., None], names: Container[str] | None = None
) -> Callable[..., None]:
    """Give the function an option for every dial of Settings, or for ``names``, as ``dials``.

    A dial that the function declares itself, since it means something else there, stays so.
    Its own parameters may be left out as well. They have no default of their own, because Python
    3.10 would wrap their annotations in an Optional that hides what Typer reads.
    """
    hints = get_type_hints(function, include_extras=True)
    own = [
        p.replace(annotation=hints[p.name], default=None)
        for p in inspect.signature(function).parameters.values()
        if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    options = [
        _option(dial.name, dial.default, dial.metadata)
        for dial in fields(Settings)
        if (names is None or dial.name in names) and dial.name not in hints
    ]
    function.__signature__ = inspect.Signature(own + options)  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in own + options}
    return function


def _option(name: str, default: Any, metadata: Any) -> inspect.Parameter:
    # a list, or a word instead of a number, is turned into the dial's own form by Settings
    kind: Any = str if metadata["many"] or metadata["choices"] else metadata["kind"]
    if metadata["repeat"]:
        kind = list[str]
    flag = "--" + name.replace("_", "-")
    if kind is bool and name not in ONE_WAY:  # slimnet.toml may say the other
        flag += "/--no-" + flag[2:]
    if metadata["unit"] == "percent":
        kind = str
    number = {"parser": _NUMBERS[kind], "metavar": f"<{kind.__name__}>"} if kind in _NUMBERS else {}
    text = f"{metadata['help']} {_unit_and_default(default, metadata)}".strip()
    annotation = Annotated[kind | None, typer.Option(flag, help=text, show_default=False, **number)]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _unit_and_default(default: Any, metadata: Any) -> str:
    """Return both in brackets; a default that the help itself tells is not told again."""
    parts = [f"unit: {metadata['unit']}"] if metadata["unit"] else []
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    if isinstance(default, bool):
        shown = "on" if default else "off"
    if shown not in (None, ""):
        parts.append(f"default: {shown}")
    elif "not given" not in metadata["help"].lower():
        parts.append("default: none")
    return f"({'; '.join(parts)})" if parts else ""


def _whole_number(text: str) -> int | str:
    try:
        return text if text == NONE else int(text)
    except ValueError:
        raise typer.BadParameter(f"it takes a whole number; got {text!r}") from None


def _number(text: str) -> float | str:
    try:
        return text if text == NONE else float(text)
    except ValueError:
        raise typer.BadParameter(f"it takes a number; got {text!r}") from None


_NUMBERS: dict[Any, Callable[[str], float | str]] = {int: _whole_number, float: _number}
