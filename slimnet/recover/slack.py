"""Slack: how far a layer's outputs can move without anything behind it taking note.

Below zero a ReLU gives zero, and beyond its ends a hard sigmoid or a clamp always gives the same:
there the derivative of every output of the network is zero. Where that begins for a channel is read
off the derivatives on some images, whatever comes behind. There a layer that is solved for what it
put out need not hit it: to stay beyond that edge will do (Zhang, Zou, He and Sun 2015). It is what
was seen on those images, no proof for others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.recover.columns import output_rows
from slimnet.recover.watching import watching


@dataclass(frozen=True)
class Slack:
    """As far as was seen, nothing changes while channel c stays at or below ``low[c]``.

    Nor while it stays at or above ``high[c]``. Both are (channels, 1), minus and plus infinity
    where there is no such edge.
    """

    low: Tensor
    high: Tensor

    def of(self, channels: Tensor, offset: Tensor) -> Slack:
        """Return the slack of these channels, bool or indices.

        Its edges are moved by ``offset``, (channels, 1) or (1, 1).
        """
        return Slack(self.low[channels] + offset, self.high[channels] + offset)

    def relaxed(self, wanted: Tensor, reached: Tensor) -> Tensor:
        """Return, of all that is as good as what is ``wanted``, the nearest to what is ``reached``.

        All are (..., rows); the axes before the last are the channels, as groups and outputs.
        """
        low, high = (edge.reshape(*wanted.shape[:-1], 1) for edge in (self.low, self.high))
        aim = torch.where(wanted <= low, torch.minimum(reached, low), wanted)
        return torch.where(wanted >= high, torch.maximum(reached, high), aim)


def find_slack(
    model: nn.Module, names: Collection[str], runs: Iterable[Callable[[], Sequence[Tensor]]]
) -> Mapping[str, Slack]:
    """Return the slack of those of these layers that have any, by name; the model is not changed.

    Each of the ``runs`` runs the model on some images and returns its outputs; it takes the memory
    of a training pass over these. A layer that runs more than once has none, and where no
    derivatives can be had there is none.
    """
    edges: dict[str, _Edges] = {}
    try:
        for run in runs:
            for name, (rows, felt) in _felt(model, names, run).items():
                edges[name] = edges.get(name, _NO_EDGES).and_of(rows, felt)
    except Exception:
        # whatever the network's own code raises means the same: that cannot be told
        return {}
    found = {name: seen.slack() for name, seen in edges.items()}
    return {
        n: s for n, s in found.items() if (s.low > -torch.inf).any() or (s.high < torch.inf).any()
    }


def _felt(
    model: nn.Module, names: Collection[str], run: Callable[[], Sequence[Tensor]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what layers put out, (channels, rows), and what of it is felt, bool, by name.

    Felt is what some output of the network has a derivative by that is not zero.
    """
    written: dict[str, list[Tensor]] = {}

    def watch(name: str, _: nn.Module, __: Tensor, output: Tensor) -> Tensor:
        output = output if output.requires_grad else output.detach().requires_grad_()
        written.setdefault(name, []).append(output)
        # what comes next may work in place
        return output.clone()

    with torch.enable_grad(), watching(model, names, watch):
        outputs = [output for output in run() if output.requires_grad]
    once = {name: output[0] for name, output in written.items() if len(output) == 1}
    gradients = _gradients(outputs, list(once.values())) if outputs and once else [None] * len(once)
    return {
        name: (output_rows(layer, output.detach()), output_rows(layer, gradient) != 0)
        for (name, output), gradient in zip(once.items(), gradients, strict=True)
        if gradient is not None
        for layer in [model.get_submodule(name)]
    }


def _gradients(outputs: Sequence[Tensor], inner: Sequence[Tensor]) -> Sequence[Any]:
    # of a sum whose parts weigh differently: that of probabilities would always be one
    weights = [torch.linspace(1, 2, o.numel(), dtype=o.dtype).reshape(o.shape) for o in outputs]
    return torch.autograd.grad(outputs, inner, weights, allow_unused=True)


@dataclass(frozen=True)
class _Edges:
    """What was seen of a layer's channels, (channels, 1) each, from below and from above.

    ``lowest`` is the lowest output that is felt, and ``low`` the highest one that is lower.
    """

    lowest: Tensor
    low: Tensor
    highest: Tensor
    high: Tensor

    def and_of(self, rows: Tensor, felt: Tensor) -> _Edges:
        """Return the edges after these outputs too, (channels, rows), of which some are felt."""
        # of other rows nothing is read at all, such as those of tokens of which no use is made
        some = felt.any(0)
        if not some.any():
            return self
        rows, felt = rows[:, some], felt[:, some]
        lowest, low = _below(rows, felt, self.lowest, self.low)
        highest, high = _below(-rows, felt, -self.highest, -self.high)
        return _Edges(lowest, low, -highest, -high)

    def slack(self) -> Slack:
        """Return the slack; a channel that is never felt has none, since other images may."""
        seen = self.lowest < torch.inf
        return Slack(
            torch.where(seen, self.low, -torch.inf), torch.where(seen, self.high, torch.inf)
        )


_NONE = torch.full((1, 1), torch.inf)
_NO_EDGES = _Edges(_NONE, -_NONE, -_NONE, _NONE)


def _below(rows: Tensor, felt: Tensor, lowest: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest output that is felt, and the highest below it, given those of before."""
    lowest = torch.minimum(lowest, torch.where(felt, rows, torch.inf).amin(1, keepdim=True))
    below = torch.where(rows < lowest, rows, -torch.inf).amax(1, keepdim=True)
    # what lay below all that was felt then need not any more; some lower one is not known
    return lowest, torch.maximum(below, torch.where(low < lowest, low, -torch.inf))
