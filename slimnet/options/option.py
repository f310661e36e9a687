"""One option and how its value is read and checked; a section: options that belong together."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from slimnet.errors import InputError

KINDS: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str}
RULES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
UNLIMITED, COUNT = (-math.inf, math.inf), (1, math.inf)
# the order in which help and slimnet.toml show the sections
TITLES = ("Model", "Data", "Budget", "Search", "Fine-tuning", "Latency", "Goals", "Output")
S = TypeVar("S", bound="Section")


def option(
    default: Any,
    help_text: str,
    *,
    unit: str = "",
    limits: tuple[float, float] | None = None,
    choices: Sequence[str] = (),
    example: Any = None,
    one_way: bool = False,
    first: int = 0,
) -> Any:
    """Declare an option as a field of a section; its annotation says the type.

    Args:
        default: None stands for "not given".
        help_text: one or two plain sentences, without unit and default, which are added.
        unit: what a number counts.
        limits: the least and the greatest number; not given, a whole number is 1 or more.
        choices: the words that text may be; an option of numbers may be one of them instead.
        example: a value for slimnet.toml, where there is no default.
        one_way: the command has no ``--no-`` form of it.
        first: its place among those that people use first; 0 is none.
    """
    rule = {"unit": unit, "limits": limits, "choices": choices, "example": example}
    ways = {"one_way": one_way, "first": first}
    return field(default=default, metadata={"help": help_text, **rule, **ways})


@dataclass(frozen=True)
class Option:
    """A declared option; ``kind`` is the type of one value."""

    name: str
    section: str
    default: Any
    kind: type
    optional: bool
    many: bool
    help: str
    unit: str
    limits: tuple[float, float]
    choices: Sequence[str]
    example: Any
    one_way: bool
    first: int

    @classmethod
    def of(cls, declared: Field[Any], section: str) -> Option:
        """Return the option that a field declares; its annotation is text, such as int | None."""
        annotation = str(declared.type)
        many = annotation.startswith("tuple[")
        kind = KINDS[re.findall(r"\w+", annotation)[many]]
        optional = annotation.endswith("| None")
        rule = dict(declared.metadata)
        rule["limits"] = rule["limits"] or (COUNT if kind is int else UNLIMITED)
        return cls(declared.name, section, declared.default, kind, optional, many, **rule)

    @property
    def flag(self) -> str:
        """The option's name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def repeats(self) -> bool:
        """Whether the command takes many values by one option each, not between commas."""
        return self.many and self.kind is str and not self.optional

    @property
    def has_default(self) -> bool:
        """Whether something else than "not given" is the default."""
        return self.default is not None and self.default != ()

    @property
    def rule(self) -> str:
        """The values that the option may have, in words."""
        if self.choices and self.kind is str:
            return " or ".join(self.choices)
        rule = RULES[self.kind]
        if self.unit == "percentage points":
            rule = "in percentage points"
        elif self.unit == "percent":
            rule = "in percent, such as 2%"
        elif self.unit and self.kind is int:
            rule += f" of {self.unit}"
        low, high = self.limits
        if self.limits != UNLIMITED:
            rule += f", {low:g} to {high:g}" if high < 1e12 else f", {low:g} or more"
        rule = ", or ".join((rule, *self.choices))
        return f"a list, each {rule}" if self.many else rule

    def parse(self, value: Any) -> Any:
        """Return a value in the option's own form: a list, or text with commas, as a tuple.

        Raises:
            InputError: text that cannot be taken apart; the message gives the rule.
        """
        if isinstance(value, Path):
            value = str(value)
        if self.many and value is not None:
            return self._parse_many(value)
        if self.kind is float and type(value) is int:
            return float(value)
        if isinstance(value, str) and self.unit == "percent":
            return self._number(value.strip().removesuffix("%"))
        if isinstance(value, str) and self.choices and self.kind is int and value.isdecimal():
            return int(value)
        return value

    def parse_word(self, word: str) -> Any:
        """Return a word of the command line as a value: there a number is text, too.

        Raises:
            InputError: see ``parse``.
        """
        if self.many or self.kind not in (int, float) or self.unit == "percent":
            return self.parse(word)
        return word if word in self.choices else self._number(word)

    def _parse_many(self, value: Any) -> tuple[Any, ...]:
        if isinstance(value, str):
            return tuple(self._number(part.strip()) for part in value.split(",") if part.strip())
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)

    def _number(self, text: str) -> Any:
        """Return text as one value, a number or text."""
        try:
            return self.kind(text)
        except ValueError:
            raise InputError(f"{self.name} is {self.rule}; got {text!r}") from None

    def require(self, value: Any) -> None:
        """Refuse a value that the option may not have.

        Raises:
            InputError: it may not; the message gives the rule.
        """
        if value is None and self.optional:
            return
        parts = value if self.many and isinstance(value, tuple) else (value,)
        if not parts and self.default != ():
            raise InputError(f"{self.name} is {self.rule}; got none")
        for part in parts:
            if not self._fits(part):
                raise InputError(f"{self.name} is {self.rule}; got {self._shown(part)}")

    def _fits(self, part: Any) -> bool:
        if self.choices and (self.kind is str or isinstance(part, str)):
            return part in self.choices
        fits = type(part) is self.kind or (self.kind is float and type(part) is int)
        if self.kind not in (int, float):
            return fits
        low, high = self.limits
        return fits and bool(low <= part <= high) and math.isfinite(part)

    def _shown(self, part: Any) -> str:
        if type(part) is float and self.kind is float:
            return f"{part:g}"
        quoted = isinstance(part, str) and part.replace(".", "", 1).isdecimal()
        hint = ": leave the quotes out" if quoted and self.kind in (int, float) else ""
        return repr(part) + hint


def nearest(name: str, known: list[str]) -> str:
    """Return "; did you mean ...?" for a mistyped name, or what is known."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


@dataclass(frozen=True)
class Section:
    """Base of all sections. A class that inherits from several stands for all their options.

    Raises:
        InputError: a value is of the wrong type or outside its range; the message gives the rule.
    """

    title: ClassVar[str]

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
