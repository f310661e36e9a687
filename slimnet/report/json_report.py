"""Records as JSON, a report read back from JSON, and the JSON Schema of report.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from slimnet.load import partial_file
from slimnet.records import Application, Report

Record = TypeVar("Record")


def as_plain(record: Any) -> dict[str, Any]:
    """Return a record as plain JSON values; does not change it.

    Paths become file names. A number that is not finite becomes None.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(type(record))
    plain: dict[str, Any] = json.loads(adapter.dump_json(record, fallback=str, warnings=False))
    return plain


def report_json(report: Report | Application) -> str:
    """Return the text of report.json; does not change the report."""
    return json.dumps(as_plain(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def save_report(report: Report | Application, path: Path) -> None:
    """Write the report as JSON.

    Raises:
        InputError: the file cannot be written.
    """
    with partial_file(path) as temporary:
        temporary.write_text(report_json(report), encoding="utf-8")


def record_from_json(kind: type[Record], text: str) -> Record:
    """Return a record of some kind from JSON; fields that the kind does not have are ignored.

    Raises:
        ValueError: a field is missing or of another type, which is never converted; in one line.
    """
    try:
        return TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from error


class _ReportSchema(GenerateJsonSchema):
    """JSON as ``as_plain`` makes it: every field is there, no others, and NaN is null."""

    def float_schema(self, schema: Any) -> dict[str, Any]:
        return {"type": ["number", "null"]}

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        return {**super().dataclass_schema(schema), "additionalProperties": False}

    def field_is_required(self, field: Any, total: bool) -> bool:
        return True

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema of report.json."""
    schema = TypeAdapter(Report).json_schema(mode="serialization", schema_generator=_ReportSchema)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": "slimnet report"}


if __name__ == "__main__":
    print(json.dumps(report_schema(), indent=1, ensure_ascii=False))
