"""Checks a finished folder again, at another place and time. Nothing in it is executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import onnx
from torch import Tensor, nn

from slimnet import execution, export, load, tasks, timing
from slimnet.data import common_inputs, load_splits, made_up_onnx_inputs, onnx_inputs
from slimnet.errors import InputError, ProofError, SlimnetError
from slimnet.export import NAME as INT8
from slimnet.load import first_line, record_from_json
from slimnet.options import (
    BudgetOptions,
    DataFileOptions,
    DataOptions,
    MemoryOptions,
    Options,
    names_of,
    options_from,
)
from slimnet.records import Artefacts, Check, Drop, Int8, Size, Split, Verification

BATCH_SIZES = (1, 3)  # one image, and a batch of a size that no test or export used
INT8_POINTS = 0.5  # a guess: processors round int8 differently, and some saturate
ROUNDING_POINTS = 1e-6  # far above the rounding of a float64, far below one image of a million


@dataclass(frozen=True)
class _Reported:
    """The fields of report.json that are checked. ``apply`` reports no drops and no settings."""

    schema_version: Literal[2]
    source_sha256: str | None
    plan_sha256: str
    original_size: Size
    slim_size: Size
    artefacts: Artefacts
    selection_drop: Drop | None = None
    confirmation_drop: Drop | None = None
    test_drop: Drop | None = None
    verdict: str = ""
    int8: Int8 | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def verify(
    folder: str | Path,
    *,
    model: str | Path | nn.Module | None = None,
    data: Any = None,
    options: Options | Mapping[str, Any] | None = None,
    **changes: Any,
) -> Verification:
    """Check the folder of ``compress`` or ``apply``: its files, and model and data if given.

    The folder is not changed.

    Args:
        folder: the folder.
        model: the original network; the plan must turn it into the slim one.
        data: the data of the run; the drop is measured and tested again on the confirmation images,
            or on the selection images if the report only estimates it.
        options: options that name files or code for model and data (arch, allow, trust_pickle,
            preprocess, calibration_data, test_data); the report gives the others.
        **changes: any field of Options, by name.

    Returns:
        Every check with its outcome; a check that fails does not stop the others.

    Raises:
        InputError: the folder holds no report that this version can read, or model or data
            cannot be loaded.
    """
    path = Path(folder)
    reported = _read_report(path)
    options = options_from(options, _reported_options(reported) | changes)
    checks: dict[str, Callable[[], str]] = {
        "files": partial(_check_files, path, reported),
        "original.onnx": partial(_check_onnx, path / "original.onnx", reported),
        "slim.onnx": partial(_check_onnx, path / "slim.onnx", reported),
        "plan": partial(_check_plan, path, reported),
        "figures": partial(_check_figures, path, reported),
    }
    int8 = reported.int8 if reported.int8 and reported.int8.shipped else None
    if int8:
        checks[INT8] = partial(_check_int8, path / INT8, reported)
    runtime = timing.RUNTIMES.get(str(reported.settings.get("runtime")))
    if runtime is not None and runtime.checks_outputs:
        checks[runtime.name] = partial(_check_runtime, path, runtime)
    if model is not None:
        loaded = load.load_model(model, options)
        checks["model"] = partial(_check_source, loaded.sha256, reported)
        checks["sizes"] = partial(_check_sizes, path, loaded.model, reported)
        checks["plan on model"] = partial(_check_replay, path, loaded.given or loaded.model)
    if data is not None:
        drops = _repeatable_drops(reported, reported)
        # the original says which images the network takes and, without labels, gives the answers
        original = timing.OnnxNetwork(path / "original.onnx")
        splits = load_splits(data, options, original, confirm=options.confirms)
        for split in (splits.confirmation or splits.selection, splits.test):
            if split is None:
                continue
            confirms = split is splits.confirmation and reported.verdict == "confirmed"
            tested = options if confirms else None
            name = "test drop" if split is splits.test else "drop"
            check = partial(_check_drop, path, split, tested)
            checks[name] = partial(check, "slim.onnx", drops[split.name])
            if int8:
                drop = _repeatable_drops(reported, int8)[split.name]
                checks[f"int8 {name}"] = partial(check, INT8, drop)
    return Verification(str(folder), tuple(_run(*check) for check in checks.items()))


def _run(name: str, check: Callable[[], str]) -> Check:
    """Return the outcome of a check, which returns its finding or raises."""
    try:
        return Check(name, True, check())
    except SlimnetError as error:
        return Check(name, False, str(error))
    except Exception as error:  # the reader of a damaged file may raise anything
        return Check(name, False, first_line(error))


def _read_report(folder: Path) -> _Reported:
    path = folder / "report.json"
    if not path.is_file():
        raise InputError(f"a folder that slimnet wrote holds a report.json; there is no {path}")
    try:
        return record_from_json(_Reported, path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"a folder that slimnet wrote holds a report.json of schema version 2; {path} cannot "
            f"be read as one ({first_line(error)}): use the slimnet that wrote it"
        ) from error


def _reported_options(reported: _Reported) -> dict[str, Any]:
    """Return the report's options of data and budget, but none that names a file or code."""
    names = names_of(DataOptions, BudgetOptions) - names_of(DataFileOptions, MemoryOptions)
    return {name: value for name, value in reported.settings.items() if name in names}


def _repeatable_drops(reported: _Reported, holder: _Reported | Int8) -> dict[str, Drop | None]:
    """Return the drops by split, if they can be measured again from ONNX files."""
    drop = reported.selection_drop
    if drop is None:
        raise InputError(
            "slimnet apply wrote this folder and measured no drop on data, so there is none to "
            "compare with: leave the data out"
        )
    if drop.quantity not in tasks.BY_QUANTITY:
        raise InputError(
            "only a drop of accuracy can be measured again from ONNX files; this folder's is of "
            f"the task's own {drop.quantity}: leave the data out, and compute it with slim.onnx "
            "yourself"
        )
    return {
        "selection": holder.selection_drop,
        "confirmation": holder.confirmation_drop,
        "test": holder.test_drop,
    }


def _check_files(folder: Path, reported: _Reported) -> str:
    """Check that every file has the SHA-256 in the report."""
    digests = reported.artefacts.sha256
    export.require_intact(folder, digests)
    return f"{len(digests)} files, each with its SHA-256"


def _check_onnx(path: Path, reported: _Reported) -> str:
    """Check that a file is valid ONNX, was made by this plan, and runs at several batch sizes."""
    proto = onnx.load(str(path), load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if metadata.get("plan_sha256") != reported.plan_sha256:
        raise ProofError("it carries the hash of another plan")
    network = timing.OnnxNetwork(path)
    for inputs in _noise(path):
        outputs = tasks.output_tensors(network.run(inputs))
        if not all(bool(output.isfinite().all()) for output in outputs):
            raise ProofError(f"its output is not finite at batch {len(inputs[0])}")
    return f"valid, and runs at batch {' and '.join(map(str, BATCH_SIZES))}"


def _noise(path: Path) -> list[tuple[Tensor, ...]]:
    """Return random inputs for an ONNX file, one set for each batch size."""
    inputs = onnx_inputs(path)
    if any(None in one.shape[1:] for one in inputs):  # the plan has the size of the data
        shape = export.read_plan_file(path.parent / "plan.json").input_shape
        inputs = common_inputs(path, path, shape)
    return [made_up_onnx_inputs(inputs, images, images) for images in BATCH_SIZES]


def _check_int8(path: Path, reported: _Reported) -> str:
    """Check the int8 file, which the report's hashes must include, like the other ONNX files."""
    if path.name not in reported.artefacts.sha256:
        raise ProofError("the report has no SHA-256 of it")
    return _check_onnx(path, reported)


def _check_runtime(folder: Path, runtime: timing.Runtime) -> str:
    """Check that the runtime that the network is fast on gives the outputs of ONNX Runtime."""
    if missing := runtime.missing():
        return f"not run: this machine lacks {' and '.join(missing)}"
    error = max(
        timing.error_beside_onnx_runtime(runtime, path, _noise(path))
        for path in (folder / "original.onnx", folder / "slim.onnx")
    )
    return f"both files give ONNX Runtime's outputs, to {error:.1e} of the output's scale"


def _check_plan(folder: Path, reported: _Reported) -> str:
    """Check that plan.json is the plan in the report."""
    plan = export.load_plan(folder / "plan.json")
    if export.plan_sha256(plan) != reported.plan_sha256:
        raise ProofError("it is not the plan of the report")
    removed = sum(len(indices.get("out", ())) for indices in plan.values())
    return f"{removed:,} channels of {len(plan):,} modules"


def _check_figures(folder: Path, reported: _Reported) -> str:
    """Check that drops and file sizes in the report do not contradict themselves or the files."""
    drops = (reported.selection_drop, reported.confirmation_drop, reported.test_drop)
    for drop in filter(None, drops):
        points = drop.original_percent - drop.slim_percent
        if not abs(drop.points - points) <= ROUNDING_POINTS:
            raise ProofError(
                f"the report gives a drop of {drop.points:g} points, but from "
                f"{drop.original_percent:g} to {drop.slim_percent:g} it is {points:g}"
            )
    artefacts = reported.artefacts
    files = {"original.onnx": artefacts.original_onnx, "slim.onnx": artefacts.slim_onnx}
    for name, file in files.items():
        size = (folder / name).stat().st_size
        if file.bytes != size:
            raise ProofError(f"the report gives {name} {file.bytes:,} bytes; it has {size:,}")
    return "drops and file sizes add up"


def _check_source(digest: str | None, reported: _Reported) -> str:
    """Check that a model file is the one that was slimmed."""
    if reported.source_sha256 is None or digest is None:
        return "not compared: a live module has no SHA-256; its weights are compared next"
    if digest != reported.source_sha256:
        raise ProofError("it is not the file that was slimmed (SHA-256 differs)")
    return "the file that was slimmed"


def _check_sizes(folder: Path, model: nn.Module, reported: _Reported) -> str:
    """Check the report's parameters, convolution weights and MACs; the model is not changed."""
    image, *_ = _noise(folder / "original.onnx")
    slim = export.load_slim(folder, load.copied(model))
    for name, network, size in (
        ("original", model, reported.original_size),
        ("slim", slim, reported.slim_size),
    ):
        found = execution.measure_size(network, image)
        if found != size:
            raise ProofError(f"the report gives the {name} network {size}; it has {found}")
    return "parameters, convolution weights and MACs are as in the report"


def _check_replay(folder: Path, model: nn.Module) -> str:
    """Check that the model is original.onnx, and that plan and weights turn it into slim.onnx.

    The model is changed: it becomes the slim one.
    """
    error = _largest_error(model, folder / "original.onnx")
    slim = export.load_slim(folder, model)
    error = max(error, _largest_error(slim, folder / "slim.onnx"))
    return f"model and plan give both ONNX files, to {error:.1e} of the output's scale"


def _largest_error(model: nn.Module, path: Path) -> float:
    return max(export.onnx_parity(model, path, inputs).relative_error for inputs in _noise(path))


def _check_drop(
    folder: Path, split: Split, tested: BudgetOptions | None, name: str, reported: Drop | None
) -> str:
    """Check that the drop of one file on a split is the reported one.

    With ``tested`` it must also be confirmed again to be within this budget.
    """
    if reported is None:
        raise ProofError(f"the report holds no drop of {name}")
    original, slim = (
        tasks.measure_quality(timing.OnnxNetwork(folder / file), split)
        for file in ("original.onnx", name)
    )
    task = tasks.BY_QUANTITY[reported.quantity]
    found = task.drop(original, slim, 0.5)
    if found.images != reported.images:
        raise ProofError(
            f"these data have {found.images:,} {split.name} images, those of the report "
            f"{reported.images:,}: give the same data, and the same --calibration-data"
        )
    text = f"from {found.original_percent:.2f} to {found.slim_percent:.2f} %"
    image = (
        1.5 * 100 * task.largest_share(original)
    )  # one image may stand on the edge between two classes
    for now, before, allowed in (
        (found.original_percent, reported.original_percent, image),
        (found.slim_percent, reported.slim_percent, max(image, INT8_POINTS * (name == INT8))),
    ):
        if not abs(now - before) <= allowed:
            raise ProofError(
                f"{text}; in the report it is from {reported.original_percent:.2f} to "
                f"{reported.slim_percent:.2f} %"
            )
    text += f" on {found.images:,} {split.name} images, as in the report"
    if tested is None:
        return text
    p_value = task.p_value(original, slim, tested.max_drop)
    if p_value > 1 - tested.confidence:
        raise ProofError(
            f"{text}, but that it is above {tested.max_drop:g} points cannot be ruled out at "
            f"{100 * tested.confidence:g} % (p = {p_value:.3f})"
        )
    return f"{text}; confirmed to be at most {tested.max_drop:g} points (p = {p_value:.3f})"
