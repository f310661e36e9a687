"""Records as JSON and back, the JSON Schema of report.json, and an earlier report used again."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from slimnet.errors import SlimnetError
from slimnet.export import require_intact
from slimnet.load import partial_file, record_from_json, sha256_of
from slimnet.options import Options
from slimnet.records import Application, Report

MAX_CODE_FILES = 1000  # a guess: more Python files than that are not one user's project


def as_plain(record: Any) -> dict[str, Any]:
    """Return a record as plain JSON values; does not change it.

    Paths become file names. A number that is not finite becomes None.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(type(record))
    plain: dict[str, Any] = json.loads(adapter.dump_json(record, fallback=str, warnings=False))
    return plain


def record_json(record: Any) -> str:
    """Return a record as one JSON document, without a line end; does not change it."""
    return json.dumps(as_plain(record), indent=1, allow_nan=False)


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


class _UnknownContentError(Exception):
    """A part of the run cannot be hashed."""


def content_sha256(model: Any, data: Any, options: Options) -> str | None:
    """Return one hash of model, data and all files that the options name; nothing is changed.

    The user's code counts with every Python file in its folder and below. None for live objects,
    for data or classes made by code, and for a file that cannot be read.
    """
    if options.allow or options.trust_pickle:
        return None
    found = hashlib.sha256()
    try:
        for name, value in (
            ("model", model), ("data", data), ("calibration_data", options.calibration_data),
            ("test_data", options.test_data),
            ("arch", options.arch), ("preprocess", options.preprocess), ("task", options.task),
            ("baseline", options.baseline), ("latency_table", options.latency_table),
        ):  # fmt: skip
            for part in () if value is None else _parts(name, value):
                found.update(f"{len(part)} ".encode() + part)
    except (OSError, _UnknownContentError):
        return None
    return found.hexdigest()


def _parts(name: str, value: Any) -> Iterator[bytes]:
    """Yield the name of one argument of the run, and the content of the files it names."""
    yield name.encode()
    if not isinstance(value, (str, Path)):
        raise _UnknownContentError
    path, _, code = str(value).rpartition(":")
    if name in ("model", "data", "calibration_data", "test_data", "baseline", "latency_table"):
        place = str(value).partition("@")[2] if str(value).startswith("torchvision:") else value
        yield from _files(Path(place).expanduser(), "*")
    elif name == "task" or path.endswith(".py"):
        file = Path(value if name == "task" else path)
        yield from (file.name.encode(), code.encode())
        yield from _files(file.parent, "*.py")
    elif value == "imagenet" or str(value).startswith("torchvision:"):
        yield str(value).encode()
    else:
        raise _UnknownContentError


def _files(place: Path, pattern: str) -> Iterator[bytes]:
    """Yield the hash of a file, or name and hash of every such file in a folder, in order."""
    if place.is_file():
        yield sha256_of(place).encode()
        return
    files = sorted(path for path in place.rglob(pattern) if path.is_file())
    if not files or (pattern != "*" and len(files) > MAX_CODE_FILES):
        raise _UnknownContentError
    for path in files:
        yield str(path.relative_to(place)).encode(errors="surrogateescape")
        yield sha256_of(path).encode()


def run_sha256(
    content_sha256: str | None, options: Options, environment: Mapping[str, Any]
) -> str | None:
    """Return one hash of content, options and environment; None without the content's."""
    if content_sha256 is None:
        return None
    # the option cache says whether a result may be used again, and changes nothing in it
    values = {name: value for name, value in asdict(options).items() if name != "cache"}
    plain = json.dumps([content_sha256, values, environment], sort_keys=True, default=str)
    return hashlib.sha256(plain.encode()).hexdigest()


def earlier_report(folder: Path, run: str | None) -> Report | None:
    """Return the report in a finished folder if it has this ``run_sha256`` and its files are whole.

    Nothing is changed. A report that cannot be read counts as none.
    """
    if run is None or not (folder / "report.html").is_file():
        return None
    try:
        report = record_from_json(Report, (folder / "report.json").read_text(encoding="utf-8"))
        if report.run_sha256 != run:
            return None
        require_intact(folder, report.artefacts.sha256)
    except (OSError, SlimnetError, ValueError):
        return None
    return report


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
