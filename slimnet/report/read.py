"""Records from the plain JSON values that they became."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


def record_from(kind: Any, value: Any) -> Any:
    """Return a value of a type of the records, from its JSON form; a float's null becomes NaN.

    Raises:
        TypeError, ValueError, KeyError or AttributeError: it is no such thing.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        names = [field.name for field in dataclasses.fields(kind)]
        made: Any = kind
        return made(**{name: record_from(hints[name], value[name]) for name in names})
    if origin in (Union, UnionType):
        other = next(part for part in parts if part is not NoneType)
        return None if value is None else record_from(other, value)
    if origin is tuple:
        kinds = parts[:1] * len(value) if parts[1:] == (...,) else parts
        return tuple(record_from(one, entry) for one, entry in zip(kinds, value, strict=True))
    if origin is Mapping:
        return {parts[0](key): record_from(parts[1], entry) for key, entry in value.items()}
    if kind is float:
        return math.nan if value is None else float(value)
    if kind is Path:
        return Path(value)
    if kind is not Any and type(value) is not kind:
        raise TypeError(f"{kind.__name__} was expected; got {value!r}")
    return value
