"""The latency of a network by layer, measured inside the whole network on the runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from slimnet.groups import is_depthwise
from slimnet.measure import inputs_in_effect, width_in_effect
from slimnet.records import PredictedLatency
from slimnet.search.cost import Width, Widths, widths_of

LayerTimer = Callable[[nn.Module], Mapping[str, float]]
"""Gives the milliseconds of each layer of a network by module name, the rest under "".

All of them at one speed of the machine, if its own changes.
"""

REFRESH_BELOW = 0.8


class LatencyTable:
    """What each layer costs in milliseconds at the widths it could take.

    A convolution's time is taken as proportional to its input times its output channels, each as
    far as the next of the given widths; that of a linear layer, which mostly reads its weights
    from memory, to the channels themselves. Whenever the network has become a fifth faster since
    it was last profiled it is profiled again, so that the table is right close to where the search
    is.

    Args:
        time_layers: gives the milliseconds of each layer of a network.
        model: the network as it is at first; it is not changed.
        input_widths: ascending; a convolution takes as long as with the next of these inputs.
        output_widths: the same of its outputs.
    """

    def __init__(
        self,
        time_layers: LayerTimer,
        model: nn.Module,
        input_widths: Sequence[int] = (),
        output_widths: Sequence[int] = (),
    ) -> None:
        self._input_widths, self._output_widths = input_widths, output_widths
        self._time_layers = time_layers
        self._profiles = 0
        self._profile(model)
        self._original_ms = self.total(self._widths)

    def _profile(self, model: nn.Module) -> None:
        self._profiles += 1
        self._times = dict(self._time_layers(model))
        self._widths = widths_of(model)
        modules = {name: model.get_submodule(name) for name in self._widths}
        self._depthwise = {name for name, module in modules.items() if is_depthwise(module)}
        self._linear = {name for name, module in modules.items() if isinstance(module, nn.Linear)}

    def cost(self, name: str, width: Width) -> float:
        """Return the milliseconds of a layer at this width."""
        known, now = self._in_effect(name, self._widths[name]), self._in_effect(name, width)
        share = now.outputs / known.outputs
        if name not in self._depthwise:
            share *= now.inputs / known.inputs
        return self._times.get(name, 0.0) * share

    def _in_effect(self, name: str, width: Width) -> Width:
        if name in self._linear:
            return width
        inputs = width_in_effect(width.inputs, self._input_widths)
        block = min(self._output_widths, default=0)
        outputs = width_in_effect(width.outputs, self._output_widths)
        return Width(inputs_in_effect(inputs, block), outputs)

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
