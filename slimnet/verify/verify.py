"""A finished folder, checked again at another place and time. Nothing in it is executed.

``slim.pt2`` is only hashed: PyTorch would run code that a forged one could hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from slimnet import load, measure
from slimnet.errors import InputError, SlimnetError
from slimnet.export.int8 import NAME as INT8
from slimnet.load.importing import first_line
from slimnet.records import Check, Verification
from slimnet.settings import Settings, settings_from
from slimnet.verify.drop import check_drop, require_accuracy
from slimnet.verify.files import check_figures, check_files, check_int8, check_onnx, check_plan
from slimnet.verify.replay import check_replay, check_sizes, check_source

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
        _check("files", lambda: check_files(path, told)),
        _check("original.onnx", lambda: check_onnx(path / "original.onnx", told)),
        _check("slim.onnx", lambda: check_onnx(path / "slim.onnx", told)),
        _check("plan", lambda: check_plan(path, told)),
        _check("figures", lambda: check_figures(path, told)),
    ]
    int8 = _shipped_int8(told)
    if int8:
        checks.append(_check(INT8, lambda: check_int8(path / INT8, told)))
    if model is not None:
        loaded = load.load_model(model, settings)
        checks.append(_check("model", lambda: check_source(loaded.sha256, told)))
        checks.append(_check("sizes", lambda: check_sizes(path, loaded.model, told)))
        checks.append(_check("plan on model", lambda: check_replay(path, loaded.model)))
    if data is not None:
        require_accuracy(told)
        # it says which images the network takes and, without labels, what it answers
        original = measure.OnnxNetwork(path / "original.onnx")
        test = load.load_splits(data, settings, original).test
        checks.append(_check("drop", lambda: check_drop(path, "slim.onnx", test, settings, told)))
        if int8:
            checks.append(_check("int8 drop", lambda: check_drop(path, INT8, test, settings, int8)))
    return Verification(str(folder), tuple(checks))


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except SlimnetError as error:
        return Check(name, False, str(error))
    except Exception as error:  # a damaged file may raise anything in whoever reads it
        return Check(name, False, first_line(error))


def _read_report(folder: Path) -> dict[str, Any]:
    if not (folder / "report.json").is_file():
        raise InputError(
            f"a folder that slimnet wrote holds a report.json; there is no {folder}/report.json"
        )
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


def _shipped_int8(told: dict[str, Any]) -> dict[str, Any]:
    int8 = told.get("int8")
    return int8 if isinstance(int8, dict) and int8.get("shipped") else {}
