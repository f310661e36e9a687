"""A section: options that belong together. A stage is given only the sections that it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, TypeVar

from slimnet.errors import InputError
from slimnet.options.option import Option, nearest

# the order in which help and slimnet.toml show them
TITLES = ("Model", "Data", "Budget", "Search", "Fine-tuning", "Latency", "Goals", "Output")
S = TypeVar("S", bound="Section")


@dataclass(frozen=True)
class Section:
    """Base of all sections. A class that inherits from several stands for all their options.

    Raises:
        InputError: a value is of the wrong type or outside its range; the message gives the rule.
    """

    title: ClassVar[str]
    affects_search: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for one in options_of(type(self)):
            one.require(getattr(self, one.name))

    def changed(self: S, changes: Mapping[str, Any]) -> S:
        """Return a copy with some options changed; a list may come as text with commas.

        Raises:
            InputError: a name is not an option (the message gives the nearest one), or a value is
                of the wrong type or outside its range.
        """
        known = {one.name: one for one in options_of(type(self))}
        for name in changes:
            if name not in known:
                raise InputError(f"unknown option {name!r}{nearest(name, list(known))}")
        return replace(self, **{name: known[name].parse(value) for name, value in changes.items()})

    def as_dict(self) -> dict[str, Any]:
        """Return the options as plain values, for the report."""
        return asdict(self)

    def search_dict(self) -> dict[str, Any]:
        """Return the options that a search depends on, as plain values."""
        decisive = {
            one.name for one in fields(self) if _declaring(type(self), one.name).affects_search
        }
        return {name: value for name, value in self.as_dict().items() if name in decisive}


def _declaring(section: type[Section], name: str) -> type[Section]:
    """Return the class that declares an option: there its default is an attribute."""
    return next(each for each in section.__mro__ if name in vars(each))


def options_of(*sections: type[Section]) -> tuple[Option, ...]:
    """Return the options of some sections, each once, section by section."""
    found = {
        one.name: Option.of(one, _declaring(section, one.name).title)
        for section in sections
        for one in fields(section)
    }
    return tuple(sorted(found.values(), key=lambda one: TITLES.index(one.section)))


def names_of(*sections: type[Section]) -> set[str]:
    """Return the names of all options of some sections."""
    return {one.name for one in options_of(*sections)}
