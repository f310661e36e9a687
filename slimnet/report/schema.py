"""The JSON Schema of report.json, read off the records, so that the two cannot differ.

``python -m slimnet.report.schema`` prints it, for ``report.schema.json`` beside this file.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from slimnet.records import Report

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# a number that is not finite becomes null
PLAIN: dict[Any, Any] = {
    bool: "boolean", int: "integer", float: ["number", "null"], str: "string", Path: "string",
    NoneType: "null",
}  # fmt: skip


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``report.json``."""
    definitions: dict[str, Any] = {}
    root = _form(Report, definitions)
    return {
        "$schema": DIALECT, "title": "slimnet report", **root,
        "$defs": dict(sorted(definitions.items())),
    }  # fmt: skip


def _form(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one type; those of records go to ``definitions``."""
    if kind is Any:
        return {}
    if kind in PLAIN:
        return {"type": PLAIN[kind]}
    if dataclasses.is_dataclass(kind):
        return _record(kind, definitions)
    parts = get_args(kind)
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return {"anyOf": [_form(part, definitions) for part in parts]}
    if origin is tuple and parts[1:] == (...,):
        return {"type": "array", "items": _form(parts[0], definitions)}
    if origin is tuple:
        items = [_form(part, definitions) for part in parts]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _form(parts[1], definitions)}
    raise TypeError(f"no JSON form is known for {kind}")


def _record(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    name = kind.__name__
    if name not in definitions:
        definitions[name] = {}  # known, should it hold itself
        hints = get_type_hints(kind)
        fields = [field.name for field in dataclasses.fields(kind)]
        definitions[name] = {
            "type": "object",
            "description": " ".join((inspect.getdoc(kind) or "").split()),
            "properties": {field: _form(hints[field], definitions) for field in fields},
            "required": fields,
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{name}"}


if __name__ == "__main__":
    print(json.dumps(report_schema(), indent=1, ensure_ascii=False))
