"""A finished folder, checked again at another place and time. Nothing in it is executed.

``slim.pt2`` is only hashed: PyTorch would run code that a forged one could hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
from torch import Tensor, nn

from slimnet import export, load, measure
from slimnet.errors import InputError, ProofError, SlimnetError
from slimnet.load.importing import first_line
from slimnet.records import Check, Drop, Split, Verification
from slimnet.settings import Settings, settings_from

BATCHES = (1, 3)
INT8 = "slim.int8.onnx"
INT8_POINTS = 0.5  # processors round, and some saturate, differently
# what the report may say of the data; dials that name files or code are the user's alone
DIALS_OF_THE_REPORT = (
    "max_drop", "confidence", "calibration_images", "size", "mean", "std", "channels", "scale",
    "batch_size", "seed", "labels",
)  # fmt: skip


def verify(
    folder: str | Path,
    *,
    model: str | Path | nn.Module | None = None,
    data: Any = None,
    settings: Settings | Mapping[str, Any] | None = None,
) -> Verification:
    """Check what ``compress`` wrote: files, ONNX, plan and, where they are given, model and data.

    The folder is not changed.

    Args:
        folder: what ``compress`` wrote.
        model: the original network; the plan must turn it into the slim one.
        data: the data of the run; the drop on the test images is measured again.
        settings: how to load model and data, where that names files or code (arch, allow,
            trust_pickle, preprocess, calibration_data); the rest comes from the report.

    Returns:
        Every check with its outcome; one that fails does not stop the others.

    Raises:
        InputError: the folder holds no report that this version can read, or model or data
            cannot be loaded.
    """
    path = Path(folder)
    told = _read_report(path)
    settings = settings_from(settings, _dials(told))
    checks = [
        _check("files", lambda: _files(path, told)),
        _check("original.onnx", lambda: _onnx_file(path / "original.onnx", told)),
        _check("slim.onnx", lambda: _onnx_file(path / "slim.onnx", told)),
        _check("plan", lambda: _plan(path, told)),
    ]
    int8 = _shipped_int8(told)
    if int8:
        checks.append(_check(INT8, lambda: _int8_file(path / INT8, told)))
    if model is not None:
        loaded = load.load_model(model, settings)
        checks.append(_check("model", lambda: _same_source(loaded.sha256, told)))
        checks.append(_check("plan on model", lambda: _replays(path, loaded.model)))
    if data is not None:
        _require_accuracy(told)
        # it says which images the network takes and, without labels, what it answers
        original = measure.OnnxNetwork(path / "original.onnx")
        test = load.load_splits(data, settings, original).test
        checks.append(_check("drop", lambda: _drop(path, "slim.onnx", test, settings, told)))
        if int8:
            off = INT8_POINTS
            checks.append(_check("int8 drop", lambda: _drop(path, INT8, test, settings, int8, off)))
    return Verification(str(folder), tuple(checks))


def _require_accuracy(told: dict[str, Any]) -> None:
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


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except SlimnetError as error:
        return Check(name, False, str(error))
    except Exception as error:  # a damaged file may raise anything in whoever reads it
        return Check(name, False, first_line(error))


def _read_report(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        fits = isinstance(told, dict) and told["schema_version"] == 1
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise InputError(
            f"a folder that slimnet wrote holds a report.json; that of {folder} cannot be read "
            f"({first_line(error)})"
        ) from error
    if not fits:
        raise InputError(f"the report of {folder} is not of form 1: use the slimnet that wrote it")
    return dict(told)


def _dials(told: dict[str, Any]) -> dict[str, Any]:
    given = told.get("settings", {})
    return {name: given[name] for name in DIALS_OF_THE_REPORT if name in given}


def _files(folder: Path, told: dict[str, Any]) -> str:
    """Check that every file is the one that the report tells of."""
    digests = told["artefacts"]["sha256"]
    export.require_intact(folder, digests)
    return f"{len(digests)} files, each with its SHA-256"


def _shipped_int8(told: dict[str, Any]) -> dict[str, Any]:
    int8 = told.get("int8")
    return int8 if isinstance(int8, dict) and int8.get("shipped") else {}


def _int8_file(path: Path, told: dict[str, Any]) -> str:
    if path.name not in told["artefacts"]["sha256"]:
        raise ProofError("the report has no SHA-256 of it")
    return _onnx_file(path, told)


def _onnx_file(path: Path, told: dict[str, Any]) -> str:
    """Check that a file is valid ONNX, of this plan, and runs at several batch sizes."""
    proto = onnx.load(str(path), load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    notes = {entry.key: entry.value for entry in proto.metadata_props}
    if notes.get("plan_sha256") != told["plan_sha256"]:
        raise ProofError("it carries the hash of another plan")
    network = measure.OnnxNetwork(path)
    for inputs in _noise(path):
        outputs = measure.output_tensors(network.run(inputs))
        if not all(bool(output.isfinite().all()) for output in outputs):
            raise ProofError(f"its output is not finite at batch {len(inputs[0])}")
    return f"valid, and runs at batch {' and '.join(map(str, BATCHES))}"


def _noise(path: Path) -> list[tuple[Tensor, ...]]:
    """Return what the file takes, made up, at every batch size."""
    wanted = load.onnx_inputs(path)
    return [load.made_up_onnx_inputs(wanted, images, images) for images in BATCHES]


def _plan(folder: Path, told: dict[str, Any]) -> str:
    plan = export.load_plan(folder / "plan.json")
    if export.plan_sha256(plan) != told["plan_sha256"]:
        raise ProofError("it is not the plan that the report tells of")
    gone = sum(len(sides.get("out", ())) for sides in plan.values())
    return f"{gone:,} channels of {len(plan):,} modules"


def _same_source(digest: str | None, told: dict[str, Any]) -> str:
    if told["source_sha256"] is None or digest is None:
        return "no file to compare: a live module has no SHA-256; its weights are compared next"
    if digest != told["source_sha256"]:
        raise ProofError("it is not the file that was slimmed (SHA-256 differs)")
    return "the file that was slimmed"


def _replays(folder: Path, model: nn.Module) -> str:
    """Check that original.onnx is the network, and that plan and weights make it slim.onnx."""
    worst = _furthest(model, folder / "original.onnx")
    worst = max(worst, _furthest(export.load_slim(folder, model), folder / "slim.onnx"))
    return f"both ONNX files are what the model and its plan give, to {worst:.1e} of the scale"


def _furthest(model: nn.Module, path: Path) -> float:
    return max(export.onnx_parity(model, path, inputs).relative_error for inputs in _noise(path))


def _drop(
    folder: Path,
    name: str,
    test: Split,
    settings: Settings,
    told: dict[str, Any],
    points: float = 0.0,
) -> str:
    """Measure the drop of a file on the test images anew; it may be so many points off."""
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
    if not _agree(found, before, points):
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
