"""The plan as JSON, its hash, and the weights: enough to rebuild the slim network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.export.partial import partial_file
from slimnet.records import Channels, Plan, PlanFile

FORMAT = "slimnet-plan"
VERSION = 1
DIRECTIONS = ("in", "out")


def plan_sha256(plan: Plan) -> str:
    """Return the hash of the plan's canonical JSON; layers that lose nothing do not count."""
    content = {
        name: {way: sorted(indices) for way, indices in sides.items() if indices}
        for name, sides in plan.items()
        if any(sides.values())
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
    """Write the plan as JSON, with what its numbering belongs to.

    That is the hash of the model file and, for whoever replays the plan on another file, how many
    ``channels`` the network had wherever the plan removes some (see ``groups.channels_of``), and
    the shape of one input.

    Raises:
        InputError: the file cannot be written.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "source_sha256": source_sha256,
        "plan_sha256": plan_sha256(plan),
        "plan": {
            name: {way: list(indices) for way, indices in sides.items()}
            for name, sides in plan.items()
        },
        "channels": channels or {},
        "input_shape": None if input_shape is None else list(input_shape),
    }
    with partial_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_plan(path: str | Path) -> Plan:
    """Read the plan that stands in a finished folder; nothing is changed.

    Args:
        path: the plan.json that ``compress`` or ``apply`` wrote.

    Returns:
        Indices to remove, by module name and side, in the original numbering.

    Raises:
        InputError: the file cannot be read, is of another format version, or is malformed.
    """
    return read_plan_file(Path(path)).plan


def read_plan_file(path: Path) -> PlanFile:
    """Read a plan that ``save_plan`` wrote, and what it says of its network.

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
    plan = {name: _read_sides(name, sides) for name, sides in layers.items()}
    digest = content.get("source_sha256")
    return PlanFile(
        plan,
        _read_channels(content.get("channels")),
        digest if isinstance(digest, str) else None,
        _read_shape(content.get("input_shape")),
    )


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


def _read_sides(layer: str, sides: Any) -> dict[str, tuple[int, ...]]:
    if not isinstance(sides, dict) or not set(sides) <= set(DIRECTIONS):
        raise InputError(f"a plan gives each layer 'in' and 'out' indices; {layer!r} has others")
    return {way: _read_indices(layer, indices) for way, indices in sides.items()}


def _read_indices(layer: str, indices: Any) -> tuple[int, ...]:
    if not isinstance(indices, list) or not all(type(index) is int for index in indices):
        raise InputError(
            f"a plan's indices are a list of whole numbers; those of {layer!r} are not"
        )
    if indices != sorted(set(indices)) or (indices and indices[0] < 0):
        raise InputError(f"a plan's indices rise from 0 without repeats; those of {layer!r} do not")
    return tuple(indices)


def _read_channels(found: Any) -> dict[str, dict[str, int]]:
    """Return how many channels the layers had; {} in a file that does not say, as older ones."""
    layers = found.items() if isinstance(found, dict) else ()
    return {
        name: {way: count for way, count in sides.items() if type(count) is int}
        for name, sides in layers
        if isinstance(sides, dict)
    }


def _read_shape(found: Any) -> tuple[int, ...] | None:
    """Return the shape of one input; None in a file that does not say."""
    axes = found if isinstance(found, list) else []
    right = axes and all(type(axis) is int and axis > 0 for axis in axes)
    return tuple(axes) if right else None
