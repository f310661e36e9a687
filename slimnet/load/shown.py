"""Names that come from a file, as they may stand in a message."""

from __future__ import annotations

from collections.abc import Iterable

MOST_CHARACTERS = 120


def shown(name: object) -> str:
    """Return a name from a file for a message: not long, and nothing that steers a terminal."""
    text = name if isinstance(name, str) else f"a {type(name).__name__}"
    if len(text) > MOST_CHARACTERS:
        text = text[:MOST_CHARACTERS] + "..."
    return "".join(character if character.isprintable() else "?" for character in text)


def listed(names: Iterable[object], most: int = 5) -> str:
    """Return the first names between commas, and dots where there are more."""
    every = list(names)
    return ", ".join(map(shown, every[:most])) + (", ..." if len(every) > most else "")
