"""A finished folder against the model that it was made from."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import nn

from slimnet import export, measure
from slimnet.errors import ProofError
from slimnet.verify.files import noise


def check_source(digest: str | None, told: dict[str, Any]) -> str:
    """Check that a model file is the one that was slimmed."""
    if told["source_sha256"] is None or digest is None:
        return "no file to compare: a live module has no SHA-256; its weights are compared next"
    if digest != told["source_sha256"]:
        raise ProofError("it is not the file that was slimmed (SHA-256 differs)")
    return "the file that was slimmed"


def check_replay(folder: Path, model: nn.Module) -> str:
    """Check that original.onnx is the network, and that plan and weights make it slim.onnx.

    The model is changed: it becomes the slim one.
    """
    worst = _furthest(model, folder / "original.onnx")
    worst = max(worst, _furthest(export.load_slim(folder, model), folder / "slim.onnx"))
    return f"both ONNX files are what the model and its plan give, to {worst:.1e} of the scale"


def check_sizes(folder: Path, model: nn.Module, told: dict[str, Any]) -> str:
    """Check that parameters, convolution weights and MACs are those of the networks."""
    image, *_ = noise(folder / "original.onnx")
    slim = export.load_slim(folder, copy.deepcopy(model))
    for name, network in (("original", model), ("slim", slim)):
        found, known = measure.measure_size(network, image), told[f"{name}_size"]
        for count in ("parameters", "conv_weights", "macs"):
            if known[count] != getattr(found, count):
                raise ProofError(
                    f"the report tells of {known[count]:,} {count} of the {name} network; it has "
                    f"{getattr(found, count):,}"
                )
    return "parameters, convolution weights and MACs are as in the report"


def _furthest(model: nn.Module, path: Path) -> float:
    return max(export.onnx_parity(model, path, inputs).relative_error for inputs in noise(path))
