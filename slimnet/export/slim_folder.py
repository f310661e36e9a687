"""A finished folder, loaded again: the plan and the weights onto the original class."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from slimnet.errors import InputError
from slimnet.export.plan_file import load_plan
from slimnet.groups import apply_plan


def load_slim(folder: str | Path, model: nn.Module) -> nn.Module:
    """Change the model, of the original's class, into the slim network of a finished folder.

    Nothing in the folder is executed.

    Args:
        folder: what ``compress`` wrote.
        model: built as the original was; its weights do not matter.

    Returns:
        The same model, now slim, with the slim weights, in eval mode.

    Raises:
        InputError: the folder cannot be read, or belongs to another network, or there is none.
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
    # a state dict of its own tells the versions of its modules, which safetensors cannot hold
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
