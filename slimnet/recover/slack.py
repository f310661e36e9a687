"""Slack: how far a layer's outputs can move without anything behind it taking note.

Below zero a ReLU gives zero, whatever it reads, and beyond its ends a hard sigmoid or a clamp does
not change: there no output of the network has a derivative. So from where on that holds of a
channel is found without knowing what is behind it. A layer that is solved for what it put out need
not hit what lies there; that it stays there will do (Zhang, Zou, He and Sun 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.recover.columns import output_rows


@dataclass(frozen=True)
class Slack:
    """Nothing changes while channel c of a layer stays below ``low[c]`` or above ``high[c]``.

    Both are (channels, 1), minus and plus infinity where that is not so.
    """

    low: Tensor
    high: Tensor

    def of(self, channels: Tensor, offset: Tensor) -> Slack:
        """Return that of some channels, an index, with ``offset`` (channels, 1) added."""
        return Slack(self.low[channels] + offset, self.high[channels] + offset)

    def relaxed(self, wanted: Tensor, reached: Tensor) -> Tensor:
        """Return what to aim at, (..., rows), instead of what is ``wanted``.

        It is nearest to what is ``reached`` of all that makes no difference. Both have the channels
        in the other axes.
        """
        low, high = (edge.reshape(*wanted.shape[:-1], 1) for edge in (self.low, self.high))
        aim = torch.where(wanted <= low, torch.minimum(reached, low), wanted)
        return torch.where(wanted >= high, torch.maximum(reached, high), aim)


def find_slack(
    model: nn.Module, names: Iterable[str], run: Callable[[], Sequence[Tensor]]
) -> Mapping[str, Slack]:
    """Return the slack of those of these layers that have any, by name; the model is not changed.

    ``run`` runs the model on some images and returns its outputs. A layer that runs more than once
    has none, and where no derivatives can be had there is none.
    """
    written: dict[str, list[Tensor]] = {}

    def watch(name: str, _: nn.Module, __: object, output: Tensor) -> Tensor:
        output = output if output.requires_grad else output.detach().requires_grad_()
        written.setdefault(name, []).append(output)
        # what comes next may work in place
        return output.clone()

    try:
        with torch.enable_grad(), ExitStack() as hooks:
            for name in names:
                handle = model.get_submodule(name).register_forward_hook(partial(watch, name))
                hooks.callback(handle.remove)
            outputs = [output for output in run() if output.requires_grad]
        once = {name: output[0] for name, output in written.items() if len(output) == 1}
        gradients = _gradients(outputs, list(once.values())) if outputs and once else ()
    except Exception:
        # whatever the network's own code raises means the same: that cannot be told
        return {}
    found = {}
    for (name, output), gradient in zip(once.items(), gradients, strict=False):
        if gradient is not None:
            layer = model.get_submodule(name)
            slack = _slack(output_rows(layer, output.detach()), output_rows(layer, gradient) != 0)
            if bool((slack.low > -torch.inf).any() | (slack.high < torch.inf).any()):
                found[name] = slack
    return found


def _gradients(outputs: Sequence[Tensor], inner: Sequence[Tensor]) -> Sequence[Any]:
    # of a sum whose parts weigh differently: that of probabilities would always be one
    weights = [torch.linspace(1, 2, o.numel(), dtype=o.dtype).reshape(o.shape) for o in outputs]
    return torch.autograd.grad(outputs, inner, weights, allow_unused=True)


def _slack(rows: Tensor, felt: Tensor) -> Slack:
    """Return the slack of a layer's outputs (channels, rows), some of which are ``felt``, bool."""
    return Slack(_edge(rows, felt), -_edge(-rows, felt))


def _edge(rows: Tensor, felt: Tensor) -> Tensor:
    """Return the highest output (channels, 1) below all that are felt, minus infinity if none.

    Of a channel that is never felt, other images may say more.
    """
    lowest = torch.where(felt, rows, torch.inf).amin(1, keepdim=True)
    below = torch.where(rows < lowest, rows, -torch.inf).amax(1, keepdim=True)
    return torch.where(lowest < torch.inf, below, -torch.inf)
