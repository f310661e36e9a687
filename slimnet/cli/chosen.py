"""What was chosen: the command line over the working folder's slimnet.toml."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from slimnet import load
from slimnet.errors import InputError
from slimnet.settings import Settings

NONE = "none"
# without a default of their own: "none" on the command line takes back what the file says
TAKEN_BACK = {dial.name for dial in fields(Settings) if dial.default in (None, ())}
TAKEN_BACK |= {"data", "input_shape", *load.OUTPUTS}


def chosen_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given, over what the working folder's configuration says."""
    chosen = load.read_configuration(Path.cwd())
    for name, value in given.items():
        if name in TAKEN_BACK and value in (NONE, [NONE]):
            chosen.pop(name, None)
        elif value not in (None, []):
            chosen[name] = value
    return chosen


def chosen_settings(
    chosen: Mapping[str, Any], names: Container[str], defaults: Settings | None = None
) -> Settings:
    """Return the settings of a command that reads only these dials."""
    return (defaults or Settings()).changed({n: v for n, v in chosen.items() if n in names})


def require_model(command: str, chosen: Mapping[str, Any]) -> None:
    """Refuse to go on without a model.

    Raises:
        InputError: none was given.
    """
    if chosen.get("model") is None:
        raise InputError(
            f'no model given: slimnet {command} model.pt, or model = "model.pt" in slimnet.toml'
        )
