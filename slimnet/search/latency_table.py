"""Layer widths and costs; the latency table, which predicts the milliseconds of layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from slimnet.errors import InputError
from slimnet.execution import is_depthwise, output_channels
from slimnet.load import record_from_json
from slimnet.records import LayerProfile, MeasuredTable, PredictedLatency
from slimnet.timing import inputs_in_effect, width_in_effect


@dataclass(frozen=True)
class Width:
    """The input and output channels of one layer."""

    inputs: int
    outputs: int

    def without(self, less: Width) -> Width:
        """Return the width after that many inputs and outputs are gone."""
        return Width(self.inputs - less.inputs, self.outputs - less.outputs)


Widths = Mapping[str, Width]
Cost = Callable[[str, Width], float]
"""The cost of one layer, by its name and width, in the unit of the objective."""


def widths_of(model: nn.Module) -> dict[str, Width]:
    """Return the width of every convolution and linear layer by module name."""
    widths = {}
    for name, outputs in output_channels(model).items():
        module = model.get_submodule(name)
        inputs = module.in_features if isinstance(module, nn.Linear) else module.in_channels
        assert isinstance(inputs, int)
        widths[name] = Width(inputs, outputs)
    return widths


def _profiled_widths(model: nn.Module) -> dict[str, tuple[int, int]]:
    return {name: (width.inputs, width.outputs) for name, width in widths_of(model).items()}


LayerTimer = Callable[[nn.Module], Mapping[str, float]]
"""Returns the milliseconds of each layer of a network by module name, and of the rest under "".

All are at one speed of the machine, even where the machine's own speed varies.
"""

REFRESH_BELOW = 0.8
"""Layers are timed again when the network takes this share of the time. A guess: with 0.9 they are
timed twice as often, with 0.64 half as often."""


NOTHING_MEASURED = MeasuredTable("", (), ())


@dataclass(frozen=True)
class _EarlierTrajectory:
    latency_table: MeasuredTable


@dataclass(frozen=True)
class _EarlierReport:
    """The part of report.json that is read again."""

    trajectory: _EarlierTrajectory


def read_latency_table(file: str, model: nn.Module) -> MeasuredTable:
    """Return the layer times that the search of an earlier report.json went by.

    Raises:
        InputError: the file has none, or none of ``model`` with the widths that its layers have.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
        table = record_from_json(_EarlierReport, text).trajectory.latency_table
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(
            "a latency table stands in the report.json of an earlier run with the objective "
            f"latency; {file} holds none ({why}): name such a file"
        ) from error
    widths = _profiled_widths(model)
    if all(profile.widths != widths for profile in table.profiles):
        raise InputError(
            "a latency table must have the times of this network's layers at their widths; that "
            f"of {file} is of another network: name a report of this one"
        )
    return table


class LatencyTable:
    """Predicts the milliseconds of each layer at any width, from the times at the present widths.

    The time of a convolution is proportional to its input times its output channels, both rounded
    up to the next of the given widths. A linear layer mostly reads its weights from memory: its
    time is proportional to the channels themselves. A network that has become a fifth faster is
    profiled again, since the prediction is best near the widths that were measured. Without a timer
    only the profiles in ``given`` are used, and the last one stays where there is none.

    Args:
        time_layers: returns the milliseconds of each layer of a network.
        model: the network before the search; it is not changed.
        input_widths: ascending; a convolution takes as long as with the next of these inputs.
        output_widths: the same for its outputs.
        given: profiles that need not be measured; without a timer, one of them is the model's.
    """

    def __init__(
        self,
        time_layers: LayerTimer | None,
        model: nn.Module,
        input_widths: Sequence[int] = (),
        output_widths: Sequence[int] = (),
        given: MeasuredTable = NOTHING_MEASURED,
    ) -> None:
        self._input_widths, self._output_widths = input_widths, output_widths
        self._time_layers = time_layers
        self._given = given
        self._used: list[LayerProfile] = []
        self._profile(model)
        self._original_ms = self.total(self._widths)

    def _profile(self, model: nn.Module) -> None:
        profile = self._profile_of(model)
        if profile is None:
            return
        self._used.append(profile)
        self._times = profile.milliseconds
        self._widths = widths_of(model)
        modules = {name: model.get_submodule(name) for name in self._widths}
        self._depthwise = {name for name, module in modules.items() if is_depthwise(module)}
        self._linear = {name for name, module in modules.items() if isinstance(module, nn.Linear)}

    def _profile_of(self, model: nn.Module) -> LayerProfile | None:
        widths = _profiled_widths(model)
        for profile in (*self._given.profiles, *self._used):
            if profile.widths == widths:
                return profile
        return self._time_layers and LayerProfile(widths, dict(self._time_layers(model)))

    @property
    def measured(self) -> MeasuredTable:
        """The profiles that were used, in order, and where they come from."""
        return replace(self._given, profiles=tuple(self._used))

    def cost(self, name: str, width: Width) -> float:
        """Return the milliseconds of a layer at this width; none without inputs or outputs."""
        if not width.inputs or not width.outputs:
            return 0.0
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
        """Return the predicted milliseconds of the network at these widths."""
        return self._times.get("", 0.0) + sum(self.cost(n, w) for n, w in widths.items())

    def prediction(self, model: nn.Module) -> PredictedLatency:
        """Predict the time of a network, beside that of the first one; does not change it."""
        predicted_ms = self.total(widths_of(model))
        return PredictedLatency(self._original_ms, predicted_ms, len(self._used) - 1)

    def refresh(self, model: nn.Module) -> None:
        """Profile the network anew if it has become much faster since the last time."""
        if self.total(widths_of(model)) < REFRESH_BELOW * self.total(self._widths):
            self._profile(model)
