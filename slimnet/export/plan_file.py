"""The plan as JSON, its hash, and the weights: enough to rebuild the slim network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.groups import apply_plan
from slimnet.load import partial_file
from slimnet.records import Channels, Plan, PlanFile

FORMAT = "slimnet-plan"
VERSION = 1
AXES = ("in", "out")


def plan_sha256(plan: Plan) -> str:
    """Return the hash of the plan's canonical JSON; layers that lose nothing do not count."""
    content = {
        name: {axis: sorted(indices) for axis, indices in axes.items() if indices}
        for name, axes in plan.items()
        if any(axes.values())
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def save_plan(
    plan: Plan,
    path: Path,
    source_sha256: str | None,
    channels: Channels | None = None,
    input_shape: Sequence[int] | None = None,
) -> None:
    """Write the plan as JSON, with a description of the network that its numbering belongs to.

    Args:
        plan: the indices to remove.
        path: where the file goes.
        source_sha256: hash of the model file.
        channels: the network's channels wherever the plan removes some (see
            ``groups.channels_of``), to check another model file that the plan is applied to.
        input_shape: shape of one input.

    Raises:
        InputError: the file cannot be written.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "source_sha256": source_sha256,
        "plan_sha256": plan_sha256(plan),
        "plan": {
            name: {axis: list(indices) for axis, indices in axes.items()}
            for name, axes in plan.items()
        },
        "channels": channels or {},
        "input_shape": None if input_shape is None else list(input_shape),
    }
    with partial_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_plan(path: str | Path) -> Plan:
    """Read the plan of a finished folder; nothing is changed.

    Args:
        path: the plan.json that ``compress`` or ``apply`` wrote.

    Returns:
        Indices to remove, by module name and axis, in the original numbering.

    Raises:
        InputError: the file cannot be read, is of another format version, or is malformed.
    """
    return read_plan_file(Path(path)).plan


def read_plan_file(path: Path) -> PlanFile:
    """Read a plan that ``save_plan`` wrote, with the description of its network.

    Raises:
        InputError: as for ``load_plan``.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read the plan {path.name}: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"a plan file says format {FORMAT!r}; {path.name} does not")
    if content.get("version") != VERSION:
        raise InputError(
            f"a plan file must be of version {VERSION}; {path.name} is of version "
            f"{content.get('version')!r}: use the slimnet that wrote it"
        )
    layers = content.get("plan")
    if not isinstance(layers, dict):
        raise InputError(f"a plan maps layers to indices; {path.name} holds no such map")
    plan = {name: _read_axes(name, axes) for name, axes in layers.items()}
    digest = content.get("source_sha256")
    return PlanFile(
        plan,
        _read_channels(content.get("channels")),
        digest if isinstance(digest, str) else None,
        _read_shape(content.get("input_shape")),
    )


def _read_axes(layer: str, axes: Any) -> dict[str, tuple[int, ...]]:
    if not isinstance(axes, dict) or not set(axes) <= set(AXES):
        raise InputError(f"a plan gives each layer 'in' and 'out' indices; {layer!r} has others")
    return {axis: _read_indices(layer, indices) for axis, indices in axes.items()}


def _read_indices(layer: str, indices: Any) -> tuple[int, ...]:
    if not isinstance(indices, list) or not all(type(index) is int for index in indices):
        raise InputError(
            f"a plan's indices are a list of whole numbers; those of {layer!r} are not"
        )
    if indices != sorted(set(indices)) or (indices and indices[0] < 0):
        raise InputError(f"a plan's indices rise from 0 without repeats; those of {layer!r} do not")
    return tuple(indices)


def _read_channels(found: Any) -> dict[str, dict[str, int]]:
    """Return how many channels the layers had; {} if an older version wrote the file."""
    layers = found.items() if isinstance(found, dict) else ()
    return {
        name: {axis: count for axis, count in axes.items() if type(count) is int}
        for name, axes in layers
        if isinstance(axes, dict)
    }


def _read_shape(found: Any) -> tuple[int, ...] | None:
    """Return the shape of one input; None if the file does not hold it."""
    sizes = found if isinstance(found, list) else []
    valid = sizes and all(type(size) is int and size > 0 for size in sizes)
    return tuple(sizes) if valid else None


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict as safetensors; does not change the model.

    Shared tensors are written once per name, so a strict ``load_state_dict`` of them works.

    Raises:
        InputError: the state dict holds something other than tensors, or cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise InputError(f"weights must be tensors to be saved; {name} is a {kind}")
        # safetensors refuses views and tensors that share memory.
        tensors[name] = value.detach().cpu().clone().contiguous()
    with partial_file(path) as temporary:
        temporary.write_bytes(save(tensors))


def load_slim(folder: str | Path, model: nn.Module) -> nn.Module:
    """Change the model, of the original's class, into the slim network of a finished folder.

    Nothing in the folder is executed.

    Args:
        folder: the output folder of ``compress`` or ``apply``.
        model: built as the original was; its weights do not matter.

    Returns:
        The same model, now slim, with the slim weights, in eval mode.

    Raises:
        InputError: the folder cannot be read, or belongs to another network; or ``model`` is none.
    """
    if not isinstance(model, nn.Module):
        kind = model.__name__ if isinstance(model, type) else type(model).__name__
        raise InputError(
            "load_slim takes the folder and a network (an instance), built as the original was; "
            f"got {kind}"
        )
    path = Path(folder)
    try:
        weights = load_file(path / "slim.safetensors")
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the weights in {path}: {error}") from error
    slim = apply_plan(model, load_plan(path / "plan.json"))
    # its own state dict holds the versions of its modules, which safetensors cannot hold
    state = slim.state_dict()
    if state.keys() != weights.keys():
        other = sorted(state.keys() ^ weights.keys())[0]
        raise InputError(f"{path} holds the weights of another network: they differ in {other!r}")
    state.update(weights)
    try:
        slim.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise InputError(f"{path} holds weights of other shapes than this network's") from error
    return slim.eval()
