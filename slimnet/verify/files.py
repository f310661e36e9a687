"""What a finished folder holds, each file for itself. A check that fails raises a ProofError."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from torch import Tensor

from slimnet import export, load, measure
from slimnet.errors import ProofError

BATCHES = (1, 3)
POINTS_ROUNDING = 1e-6


def check_files(folder: Path, told: dict[str, Any]) -> str:
    """Check that every file is the one that the report tells of."""
    digests = told["artefacts"]["sha256"]
    export.require_intact(folder, digests)
    return f"{len(digests)} files, each with its SHA-256"


def check_figures(folder: Path, told: dict[str, Any]) -> str:
    """Check that the report does not contradict itself, or the files, in what goals go by."""
    for name in ("selection_drop", "test_drop"):
        drop = told.get(name)
        points = drop and drop["original_percent"] - drop["slim_percent"]
        if drop and not abs(drop["points"] - points) <= POINTS_ROUNDING:
            raise ProofError(
                f"the report's {name} is {drop['points']:g} points, but from "
                f"{drop['original_percent']:g} to {drop['slim_percent']:g} it is {points:g}"
            )
    for name in ("original_onnx", "slim_onnx"):
        found = (folder / name.replace("_", ".")).stat().st_size
        if told["artefacts"][name]["bytes"] != found:
            raise ProofError(f"the report's {name} is not of {found:,} bytes, as the file is")
    return "drops and file sizes agree with what they are made of"


def check_int8(path: Path, told: dict[str, Any]) -> str:
    """Check that a file is one of the report's, valid ONNX, of this plan, and runs."""
    if path.name not in told["artefacts"]["sha256"]:
        raise ProofError("the report has no SHA-256 of it")
    return check_onnx(path, told)


def check_onnx(path: Path, told: dict[str, Any]) -> str:
    """Check that a file is valid ONNX, of this plan, and runs at several batch sizes."""
    proto = onnx.load(str(path), load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    notes = {entry.key: entry.value for entry in proto.metadata_props}
    if notes.get("plan_sha256") != told["plan_sha256"]:
        raise ProofError("it carries the hash of another plan")
    network = measure.OnnxNetwork(path)
    for inputs in noise(path):
        outputs = measure.output_tensors(network.run(inputs))
        if not all(bool(output.isfinite().all()) for output in outputs):
            raise ProofError(f"its output is not finite at batch {len(inputs[0])}")
    return f"valid, and runs at batch {' and '.join(map(str, BATCHES))}"


def noise(path: Path) -> list[tuple[Tensor, ...]]:
    """Return what the file takes, made up, at every batch size."""
    wanted = load.onnx_inputs(path)
    return [load.made_up_onnx_inputs(wanted, images, images) for images in BATCHES]


def check_plan(folder: Path, told: dict[str, Any]) -> str:
    """Check that plan.json is the plan that the report tells of."""
    plan = export.load_plan(folder / "plan.json")
    if export.plan_sha256(plan) != told["plan_sha256"]:
        raise ProofError("it is not the plan that the report tells of")
    gone = sum(len(sides.get("out", ())) for sides in plan.values())
    return f"{gone:,} channels of {len(plan):,} modules"
