"""Options of the command line: made from their declarations, chosen there or in slimnet.toml."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from slimnet.errors import InputError
from slimnet.options import (
    CommandOptions,
    Option,
    Options,
    Section,
    names_of,
    options_of,
    read_configuration,
)

NONE = "none"
LAST = 99


def chosen_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given, over what the working folder's configuration says.

    An option without a default takes back what the file says by the word "none".

    Raises:
        InputError: the file, or a word of the command line, cannot be used.
    """
    known = {one.name: one for one in options_of(Options, CommandOptions)}
    chosen = read_configuration(Path.cwd())
    for name, value in given.items():
        if value in (NONE, [NONE]) and not known[name].has_default:
            chosen.pop(name, None)
        elif value not in (None, []):
            chosen[name] = known[name].parse_word(value)
    return chosen


def chosen_options(chosen: Mapping[str, Any], *sections: type[Section]) -> dict[str, Any]:
    """Return what was chosen of a command's sections.

    Raises:
        InputError: an option of the library that cannot have its value.
    """
    names = names_of(*sections)
    values = {name: value for name, value in chosen.items() if name in names}
    Options().changed({name: values[name] for name in values.keys() & names_of(Options)})
    return values


def require_model(command: str, chosen: Mapping[str, Any]) -> None:
    """Refuse to go on without a model.

    Raises:
        InputError: none was given.
    """
    if chosen.get("model") is None:
        raise InputError(
            f'no model given: slimnet {command} model.pt, or model = "model.pt" in slimnet.toml'
        )


ModelArgument = Annotated[
    str | None,
    typer.Argument(help="Model file: .pt, .pth or .safetensors. (default: none, must be given)"),
]
JsonOption = Annotated[
    bool | None, typer.Option("--json", help="Print one JSON document instead. (default: off)")
]


def takes(*sections: type[Section]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every option of some sections.

    An option that the command declares itself, since it means something else there, stays so.
    Its own parameters may be left out as well. They have no default of their own, because Python
    3.10 would wrap their annotations in an Optional that hides what Typer reads.
    """

    def with_options(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        own = [
            p.replace(annotation=hints[p.name], default=None)
            for p in inspect.signature(command).parameters.values()
            if p.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        declared = sorted(options_of(*sections), key=lambda one: one.first or LAST)
        more = [_parameter(one) for one in declared if one.name not in hints]
        command.__signature__ = inspect.Signature(own + more)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in own + more}
        return command

    return with_options


def _parameter(option: Option) -> inspect.Parameter:
    """Return the parameter; a value comes as text, for ``Option.parse_word``."""
    kind: Any = bool if option.kind is bool else list[str] if option.repeats else str
    flag = option.flag
    if kind is bool and not option.one_way:  # slimnet.toml may say the other
        flag += "/--no-" + flag.removeprefix("--")
    panel = None if option.first else option.section
    text = f"{option.help} {_unit_and_default(option)}".strip()
    declared = typer.Option(flag, help=text, show_default=False, rich_help_panel=panel)
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, declared],
    )


def _unit_and_default(option: Option) -> str:
    """Return both in brackets; a default that the help itself gives is not repeated."""
    parts = [f"unit: {option.unit}"] if option.unit else []
    shown = option.default
    if isinstance(shown, bool):
        shown = "on" if shown else "off"
    elif isinstance(shown, tuple):
        shown = ",".join(map(str, shown))
    if option.has_default:
        parts.append(f"default: {shown:g}" if isinstance(shown, float) else f"default: {shown}")
    elif "not given" not in option.help.lower():
        parts.append("default: none")
    return f"({'; '.join(parts)})" if parts else ""
