"""The plan as JSON, its hash, and the weights: enough to rebuild the slim network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.groups import apply_plan
from slimnet.load import partial_file, record_from_json
from slimnet.records import Channels, Plan, PlanFile

FORMAT = "slimnet-plan"
VERSION = 1


def _rising(indices: tuple[int, ...]) -> tuple[int, ...]:
    if list(indices) != sorted(set(indices)) or min(indices, default=0) < 0:
        raise ValueError("the indices must rise from 0 without repeats")
    return indices


Axis = Annotated[str, Field(pattern="^(in|out)$")]
Indices = Annotated[tuple[int, ...], AfterValidator(_rising)]


@dataclass(frozen=True)
class _Content:
    """The fields of a plan file that are read. Older versions wrote neither of the last two."""

    format: Literal["slimnet-plan"]
    version: Literal[1]
    plan: Mapping[str, Mapping[Axis, Indices]]
    source_sha256: str | None = None
    channels: Channels = field(default_factory=dict)
    input_shape: tuple[PositiveInt, ...] | None = None


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
        content = record_from_json(_Content, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the plan {path.name}: {error}") from error
    except ValueError as error:
        raise InputError(
            f"a plan is a file of format {FORMAT!r} and version {VERSION}; {path.name} cannot be "
            f"read as one ({error}): use the slimnet that wrote it"
        ) from error
    shape = content.input_shape or None
    return PlanFile(content.plan, content.channels, content.source_sha256, shape)


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
