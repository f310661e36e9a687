"""The drop, measured again on the data of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slimnet import measure
from slimnet.errors import InputError, ProofError
from slimnet.export.int8 import NAME as INT8
from slimnet.records import Drop, Split
from slimnet.settings import Settings

INT8_POINTS = 0.5  # processors round, and some saturate, differently


def require_accuracy(told: dict[str, Any]) -> None:
    """Raise an InputError where the report tells of no drop that ONNX files can show again."""
    if "test_drop" not in told:
        raise InputError(
            "this folder's weights were never measured on data (slimnet apply wrote it), so there "
            "is no drop to compare with: leave the data out"
        )
    quantity = told["test_drop"].get("quantity", "accuracy")
    if quantity not in ("accuracy", "agreement"):
        raise InputError(
            f"only a drop of accuracy can be measured again from ONNX files; this folder's is of a "
            f"task's own {quantity}: leave the data out, and compute it with slim.onnx yourself"
        )


def check_drop(
    folder: Path, name: str, test: Split, settings: Settings, told: dict[str, Any]
) -> str:
    """Check that the drop of one file, measured anew on the test images, is as it was told."""
    original, slim = (
        measure.measure_quality(measure.OnnxNetwork(folder / file), test)
        for file in ("original.onnx", name)
    )
    found, before = measure.paired_drop(original, slim, settings.confidence), told["test_drop"]
    if found.images != before["images"]:
        raise ProofError(
            f"these data have {found.images:,} test images, those of the report "
            f"{before['images']:,}: give the same data, and the same --calibration-data"
        )
    text = f"from {found.original_percent:.2f} to {found.slim_percent:.2f} %"
    if not _agree(found, before, INT8_POINTS if name == INT8 else 0.0):
        raise ProofError(
            f"{text}; the report tells of {before['original_percent']:.2f} to "
            f"{before['slim_percent']:.2f} %"
        )
    return f"{text} on {found.images:,} test images, as in the report"


def _agree(found: Drop, before: dict[str, Any], points: float) -> bool:
    """Tell whether both networks differ by no more than an image that stands on the edge.

    The second one may be ``points`` off, where these are more.
    """
    edge = 1.5 * 100 / found.images
    return all(
        abs(getattr(found, name) - float(before[name])) <= allowed
        for name, allowed in (("original_percent", edge), ("slim_percent", max(edge, points)))
    )
