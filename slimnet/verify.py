"""A finished folder, checked again at another place and time. Nothing in it is executed.

``slim.pt2`` is only hashed: PyTorch would run code that a forged one could hold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import safetensors.torch
import torch
from torch import Tensor, nn

from slimnet import export, groups, load, measure
from slimnet.errors import InputError, ProofError, SlimnetError
from slimnet.load.importing import first_line
from slimnet.measure.runtime import open_session, session_options
from slimnet.records import Check, Drop, Split, Verification
from slimnet.settings import Settings

BATCHES = (1, 3)
# what the report may say of the data; dials that name files or code are the user's alone
DIALS_OF_THE_REPORT = (
    "max_drop", "confidence", "calibration_images", "size", "mean", "std", "channels", "scale",
    "batch_size", "seed",
)  # fmt: skip


def verify(
    folder: str | Path,
    *,
    model: str | Path | nn.Module | None = None,
    data: Any = None,
    settings: Settings | None = None,
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
    settings = (settings or Settings()).changed(_dials(told))
    checks = [
        _check("files", lambda: _files(path, told)),
        _check("original.onnx", lambda: _onnx_file(path / "original.onnx", told)),
        _check("slim.onnx", lambda: _onnx_file(path / "slim.onnx", told)),
        _check("plan", lambda: _plan(path, told)),
    ]
    if model is not None:
        loaded = load.load_model(model, settings)
        checks.append(_check("model", lambda: _same_source(loaded.sha256, told)))
        checks.append(_check("plan on model", lambda: _replays(path, loaded.model)))
    if data is not None:
        test = load.load_splits(data, settings).test
        checks.append(_check("drop", lambda: _drop(path, test, settings, told)))
    return Verification(str(folder), tuple(checks))


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
    for name, digest in digests.items():
        if Path(name).name != name or not (folder / name).is_file():
            raise ProofError(f"{name} is missing")
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise ProofError(f"{name} is not the file that the report tells of (SHA-256 differs)")
    return f"{len(digests)} files, each with its SHA-256"


def _onnx_file(path: Path, told: dict[str, Any]) -> str:
    """Check that a file is valid ONNX, of this plan, and runs at several batch sizes."""
    proto = onnx.load(str(path), load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    notes = {entry.key: entry.value for entry in proto.metadata_props}
    if notes.get("plan_sha256") != told["plan_sha256"]:
        raise ProofError("it carries the hash of another plan")
    network = _OnnxNetwork(path)
    for inputs in _noise(proto):
        if not bool(network(inputs).isfinite().all()):
            raise ProofError(f"its output is not finite at batch {len(inputs)}")
    return f"valid, and runs at batch {' and '.join(map(str, BATCHES))}"


def _noise(proto: onnx.ModelProto) -> Iterator[Tensor]:
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim][1:]
    for images in BATCHES:
        yield torch.randn(images, *shape, generator=torch.Generator().manual_seed(images))


def _plan(folder: Path, told: dict[str, Any]) -> str:
    plan = export.load_plan(folder / "plan.json")
    if export.plan_sha256(plan) != told["plan_sha256"]:
        raise ProofError("it is not the plan that the report tells of")
    gone = sum(len(sides.get("out", ())) for sides in plan.values())
    return f"{gone:,} channels of {len(plan):,} modules"


def _same_source(digest: str | None, told: dict[str, Any]) -> str:
    if digest != told["source_sha256"]:
        raise ProofError("it is not the file that was slimmed (SHA-256 differs)")
    return "the file that was slimmed"


def _replays(folder: Path, model: nn.Module) -> str:
    """Check that plan and weights make the slim ONNX file of the original network."""
    slim = groups.apply_plan(model, export.load_plan(folder / "plan.json"))
    weights = safetensors.torch.load_file(folder / "slim.safetensors")
    slim.load_state_dict(weights, strict=True)
    proto = onnx.load(str(folder / "slim.onnx"), load_external_data=False)
    worst = max(
        export.onnx_parity(slim, folder / "slim.onnx", inputs).relative_error
        for inputs in _noise(proto)
    )
    return f"plan and weights give slim.onnx, to {worst:.1e} of the output's scale"


def _drop(folder: Path, test: Split, settings: Settings, told: dict[str, Any]) -> str:
    """Measure the drop on the test images anew, from the ONNX files."""
    original, slim = (
        measure.measure_quality(_OnnxNetwork(folder / name), test)
        for name in ("original.onnx", "slim.onnx")
    )
    found, before = measure.paired_drop(original, slim, settings.confidence), told["test_drop"]
    text = f"{found.points:.2f} points on {found.images:,} test images"
    if not _agree(found, before):
        raise ProofError(f"{text}; the report tells of {before['points']:.2f}")
    return f"{text}, as in the report"


def _agree(found: Drop, before: dict[str, Any]) -> bool:
    """Tell whether two drops differ by no more than an image that stands on the edge."""
    one_image = 100 / found.images
    apart = abs(found.points - float(before["points"]))
    return bool(found.images == before["images"] and apart <= 1.5 * one_image)


class _OnnxNetwork(nn.Module):
    """An ONNX file as a network that can be called."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._session = open_session(str(path), "onnxruntime-cpu", session_options(1))
        self._input = self._session.get_inputs()[0].name

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the file's first output for these inputs (images, ...)."""
        return torch.from_numpy(self._session.run(None, {self._input: inputs.numpy()})[0])
