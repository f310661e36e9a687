"""The latency of a network by layer, measured inside the whole network on the runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from slimnet.groups import is_depthwise
from slimnet.records import PredictedLatency
from slimnet.search.cost import Width, Widths, widths_of

LayerTimer = Callable[[nn.Module], Mapping[str, float]]
"""Gives the milliseconds of each layer of a network by module name, the rest under ""."""

REFRESH_BELOW = 0.8


class LatencyTable:
    """What each layer costs in milliseconds at the widths it could take.

    A layer's time is taken as proportional to its input times its output channels, which holds
    between widths that pay. Whenever the network has become a fifth faster since it was last
    profiled it is profiled again, so that the table is always right close to where the search is.
    """

    def __init__(self, time_layers: LayerTimer, model: nn.Module) -> None:
        self._time_layers = time_layers
        self._profiles = 0
        self._profile(model)
        self._original_ms = self.total(self._widths)

    def _profile(self, model: nn.Module) -> None:
        self._profiles += 1
        self._times = dict(self._time_layers(model))
        self._widths = widths_of(model)
        self._depthwise = {n for n in self._widths if is_depthwise(model.get_submodule(n))}

    def cost(self, name: str, width: Width) -> float:
        """Return the milliseconds of a layer at this width."""
        known = self._widths[name]
        share = width.outputs / known.outputs
        if name not in self._depthwise:
            share *= width.inputs / known.inputs
        return self._times.get(name, 0.0) * share

    def total(self, widths: Widths) -> float:
        """Return the milliseconds of the network at these widths, as predicted."""
        return self._times.get("", 0.0) + sum(self.cost(n, w) for n, w in widths.items())

    def prediction(self, model: nn.Module) -> PredictedLatency:
        """Return what the network that came first and this one take; does not change it."""
        predicted_ms = self.total(widths_of(model))
        return PredictedLatency(self._original_ms, predicted_ms, self._profiles - 1)

    def refresh(self, model: nn.Module) -> None:
        """Profile the network anew if it has become much faster since the last time."""
        if self.total(widths_of(model)) < REFRESH_BELOW * self.total(self._widths):
            self._profile(model)
