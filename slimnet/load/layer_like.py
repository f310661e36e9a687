"""Find the plain layer that does what a module does, from what the module passes to torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from slimnet.load.plain_layers import FixedNorm, SamePaddedConv2d, input_padding

CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
TRANSPOSED = (
    "input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation",
)  # fmt: skip
# the layer that torch's function belongs to, and the names of its arguments
FUNCTIONS: Mapping[Any, tuple[type[nn.Module], Sequence[str]]] = {
    functional.linear: (nn.Linear, CONVOLUTION[:3]),
    functional.conv1d: (nn.Conv1d, CONVOLUTION),
    functional.conv2d: (nn.Conv2d, CONVOLUTION),
    functional.conv3d: (nn.Conv3d, CONVOLUTION),
    functional.conv_transpose1d: (nn.ConvTranspose1d, TRANSPOSED),
    functional.conv_transpose2d: (nn.ConvTranspose2d, TRANSPOSED),
    functional.conv_transpose3d: (nn.ConvTranspose3d, TRANSPOSED),
}
LAYERS = tuple(kind for kind, _ in FUNCTIONS.values())
TRANSPOSED_LAYERS = LAYERS[-3:]
MODES = ("constant", "reflect", "replicate", "circular")
SAME = 1e-10  # share of the output's scale; rounding in float64 is far below, a mistake far above
SPREAD = 100.0  # inputs also come a hundred times as large: a clamp would show
MAX_ELEMENTS = 2**24  # of one made-up input; a guess: 128 MiB, larger ones are a damaged file
MAX_SIZES = 18  # a guess: strides up to 16 meet an input of every remainder


def layer_like(module: nn.Module) -> nn.Module | None:
    """Return the plain layer, in float64, that does what the module does, or None."""
    for channels, axes in _possible_inputs(module):
        try:
            layer = _convolution_like(module, channels, axes)
        except Exception:  # the guessed input does not fit
            continue
        if layer is not None:
            return layer
    leaf = next(module.children(), None) is None
    return _norm_like(module) if leaf and not isinstance(module, LAYERS) else None


def _possible_inputs(module: nn.Module) -> Iterator[tuple[int, int]]:
    """Yield channels and spatial axes of inputs that the module may take; 0 for a linear layer."""
    for part in module.modules():
        if isinstance(part, LAYERS):
            kernel = getattr(part, "kernel_size", ())
            channels = getattr(part, "in_channels", 0) or getattr(part, "in_features", 0)
            yield int(channels), len(kernel)
            return
    groups = getattr(module, "groups", 1)
    for shape in dict.fromkeys(p.shape for p in module.parameters() if p.ndim > 1):
        for channels in dict.fromkeys((shape[1] * groups, shape[0])):
            yield channels, len(shape) - 2


@dataclass(frozen=True)
class _Call:
    """One call of a convolution or linear function inside a module, and what went in and out."""

    kind: type[nn.Module]
    arguments: Mapping[str, Any]
    inner_output: Tensor
    inputs: Tensor
    output: Tensor

    @property
    def settings(self) -> dict[str, tuple[int, ...]]:
        """Stride, dilation and output padding, one number for each axis."""
        axes = self.arguments["weight"].ndim - 2
        return {
            name: _each_axis(self.arguments.get(name, default), axes)
            for name, default in (
                ("stride", 1), ("dilation", 1), ("output_padding", 0)
            )
        }  # fmt: skip

    @property
    def padding(self) -> list[int]:
        """How much the function itself pads, as ``functional.pad`` takes it."""
        given, reach = self.arguments.get("padding", 0), self.arguments["weight"].shape[2:]
        if given == "same":
            both = zip(reach, self.settings["dilation"], strict=True)
            added = [(kernel - 1) * dilation for kernel, dilation in both]
            return [part for one in reversed(added) for part in (one // 2, one - one // 2)]
        numbers = _each_axis(0 if given == "valid" else given, len(reach))
        return [number for number in reversed(numbers) for _ in range(2)]

    @property
    def groups(self) -> int:
        return int(self.arguments.get("groups", 1))


def _each_axis(value: Any, axes: int) -> tuple[int, ...]:
    numbers = tuple(value) if isinstance(value, Sequence) else (value,)
    return numbers if len(numbers) == axes else numbers * axes


class _Watching(TorchFunctionMode):
    """Keeps the calls of torch's convolutions and linear layers in the block."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, dict[str, Any], Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in FUNCTIONS:
            kind, names = FUNCTIONS[func]
            arguments = {**dict(zip(names, args, strict=False)), **(kwargs or {})}
            self.calls.append((kind, arguments, result.clone()))
        return result


def _watch(module: nn.Module, inputs: Tensor) -> _Call:
    """Return the only such call that the module makes; a ValueError says that it is not one."""
    with _Watching() as watching:
        output = _run(module, inputs)
    ((kind, arguments, inner),) = watching.calls
    return _Call(kind, arguments, inner, inputs, output)


def _run(module: nn.Module, inputs: Tensor) -> Tensor:
    # the hooks of others would see made-up inputs; those that compute the weight must run
    run = module if computes_by_hook(module) else module.forward
    output = run(inputs.clone())
    assert isinstance(output, Tensor)
    return output


def _noise(*shape: int) -> Tensor:
    if math.prod(shape) > MAX_ELEMENTS:
        raise ValueError("too large to try")
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _convolution_like(module: nn.Module, channels: int, axes: int) -> nn.Module | None:
    """Return the convolution or linear layer that does what the module does, or None.

    Inputs of several sizes show whether the weight depends on them, and the padding on their size.
    """
    if not axes:
        inputs = [_noise(2, channels), _noise(3, 4, channels)]
    else:
        weight_shapes = [p.shape[2:] for p in module.parameters() if p.ndim == axes + 2]
        reach = max((max(shape) for shape in weight_shapes), default=1)
        steps = _each_axis(getattr(module, "dilation", 1), axes)
        least = max(4, (reach - 1) * max(steps) + 1)
        stride = max(_each_axis(getattr(module, "stride", 1), axes))
        count = min(max(4, stride + 1), MAX_SIZES)
        # each axis gets all sizes, in opposite orders
        sizes = [(least + i, least + count - 1 - i, least + i)[:axes] for i in range(count)]
        inputs = [_noise(1, channels, *size) for size in sizes]
    calls = [_watch(module, x) for x in inputs]
    first = calls[0]
    if not all(_equal_settings(first, call) for call in calls[1:]):
        return None
    scale = _input_scale(first)
    axis = inputs[0].ndim - 1 if first.kind is nn.Linear else 1
    factor, shift = _output_change(first, axis)
    layer = _layer_of(calls, scale)
    if layer is None:
        return None
    weight, bias = first.arguments["weight"], first.arguments.get("bias")
    if scale != 1 or bool((factor != 1).any()):
        if (
            first.kind in TRANSPOSED_LAYERS
        ):  # its output channels stand elsewhere, and hardly any code scales them
            return None
        weight = weight * (scale * factor).reshape(-1, *[1] * (weight.ndim - 1))
    if bias is not None or bool(shift.any()):
        shift = shift + (0 if bias is None else factor * bias)
        layer.bias = nn.Parameter(shift)
    layer.weight = nn.Parameter(weight.clone().contiguous())
    return (
        layer
        if _gives_same(layer.double(), module, [(c.inputs, c.output) for c in calls])
        else None
    )


def _equal_settings(one: _Call, other: _Call) -> bool:
    tensors = [(one.arguments.get(t), other.arguments.get(t)) for t in ("weight", "bias")]
    return (
        all(
            getattr(one, name) == getattr(other, name)
            for name in ("kind", "settings", "padding", "groups")
        )
        and all((a is None) == (b is None) for a, b in tensors)
        and all(a is None or _alike(a, b) for a, b in tensors)  # type: ignore[arg-type]
    )


def _alike(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors are equal but for rounding in float64."""
    if one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= SAME * other.abs().max())


def _input_scale(call: _Call) -> float:
    """Return the factor between what the module and what the convolution reads."""
    outer, inner = (x.flatten() for x in (call.inputs, call.arguments["input"]))
    return float(inner[inner.abs().argmax()] / outer[outer.abs().argmax()])


def _output_change(call: _Call, axis: int) -> tuple[Tensor, Tensor]:
    """Return factor and shift of each channel, from the convolution's output to the module's."""
    inner, outer = (y.movedim(axis, 0).flatten(1) for y in (call.inner_output, call.output))
    if torch.equal(inner, outer):
        return torch.ones_like(inner[:, 0]), torch.zeros_like(inner[:, 0])
    centred = inner - inner.mean(1, keepdim=True)
    spread = centred.square().sum(1)
    factor = torch.where(spread > 0, (centred * outer).sum(1) / spread, 1.0)
    return factor, outer.mean(1) - factor * inner.mean(1)


def _layer_of(calls: Sequence[_Call], scale: float) -> Any:
    """Return a layer with the settings of the calls and the module's padding, or None.

    Its weights mean nothing, and it has no bias.
    """
    call = calls[0]
    weight, kind, groups = call.arguments["weight"], call.kind, call.groups
    if kind is nn.Linear:
        untouched = all(_alike(scale * c.inputs, c.arguments["input"]) for c in calls)
        return nn.Linear(weight.shape[1], weight.shape[0], bias=False) if untouched else None
    found = [_padding_before(scale * c.inputs, c.arguments["input"]) for c in calls]
    if None in found:
        return None
    if kind in TRANSPOSED_LAYERS:
        if any(any(pads) for pads, _ in filter(None, found)):
            return None
        return kind(
            weight.shape[0], weight.shape[1] * groups, weight.shape[2:], **call.settings,
            padding=call.padding[::-2], groups=groups, bias=False,
        )  # fmt: skip
    settings = {key: value for key, value in call.settings.items() if key != "output_padding"}
    layer: Any = kind(weight.shape[1] * groups, weight.shape[0], weight.shape[2:], **settings,
                      groups=groups, bias=False)  # fmt: skip
    pads = [
        [a + b for a, b in zip(before, call.padding, strict=True)]
        for before, _ in filter(None, found)
    ]
    (mode,) = {mode for _, mode in filter(None, found)} - {"constant"} or {"constant"}
    if mode != "constant" and any(call.padding):
        return None
    if all(one == pads[0] for one in pads):
        return _padded(layer, pads[0], mode)
    sizes = [c.inputs.shape[2:] for c in calls]
    if kind is nn.Conv2d and mode == "constant":
        same = SamePaddedConv2d(layer.in_channels, layer.out_channels, layer.kernel_size,
                                **settings, groups=groups, bias=False)  # fmt: skip
        if pads == [input_padding(same, size) for size in sizes]:
            return same
    return None


def _padded(layer: Any, pads: list[int], mode: str) -> Any:
    """Change the convolution to pad so, and return it; ``pads`` are as ``functional.pad`` takes."""
    if pads[::2] == pads[1::2]:
        layer.padding = tuple(pads[::-2])
    if mode != "constant" or pads[::2] != pads[1::2]:
        # torch's layer pads by the list below, in this mode, and then convolves
        layer.padding_mode = mode
    layer._reversed_padding_repeated_twice = pads
    return layer


def _padding_before(inputs: Tensor, padded: Tensor) -> tuple[tuple[int, ...], str] | None:
    """Return how the inputs were padded, as ``functional.pad`` takes it, and in which mode."""
    added = [b - a for a, b in zip(inputs.shape[2:], padded.shape[2:], strict=True)]
    places = [_from_the_middle(number) for number in added]
    for mode, before in product(MODES if any(added) else MODES[:1], product(*places)):
        ends = [(one, n - one) for one, n in zip(before, added, strict=True)]
        pads = tuple(number for pair in reversed(ends) for number in pair)
        try:
            if _alike(functional.pad(inputs, pads, mode), padded):
                return pads, mode
        except RuntimeError:  # no such padding of these sizes
            continue
    return None


def _from_the_middle(added: int) -> list[int]:
    """Return how many of the added zeros may stand before an axis, the likeliest first."""
    return sorted(range(added + 1), key=lambda before: abs(2 * before - added))


def _gives_same(
    layer: nn.Module, module: nn.Module, known: Sequence[tuple[Tensor, Tensor]]
) -> bool:
    """Tell whether both give the same in float64 on known inputs, and on larger ones."""
    larger = SPREAD * known[0][0]
    pairs = [*known, (larger, _run(module, larger))]
    return all(_alike(layer(inputs), output) for inputs, output in pairs)


def _norm_like(module: nn.Module) -> nn.Module | None:
    """Return the norm that scales and shifts each channel as the module does, or None."""
    counts = {tensor.numel() for tensor in tensors_of(module)} - {1}
    if len(counts) != 1:
        return None
    (channels,) = counts
    # none has as many places as channels, so that another axis cannot pass for that of the channels
    places = [size for size in (3, 4, 5, 6) if size != channels]
    found: nn.Module | None = None
    for axes in (2, 1, 3):
        shape = (2, channels, *places[:axes])
        try:
            zero, one = (
                _run(module, torch.full(shape, value, dtype=torch.float64)) for value in (0.0, 1.0)
            )
        except Exception:  # the module may take other inputs only
            continue
        if zero.shape != shape or one.shape != shape:
            return None
        shift = zero.transpose(0, 1).flatten(1)[:, 0]
        layer = FixedNorm(one.transpose(0, 1).flatten(1)[:, 0] - shift, shift)
        inputs = [_noise(*shape), _noise(3, channels, *places[-axes:])]
        if not _gives_same(layer, module, [(x, _run(module, x)) for x in inputs]):
            return None
        found = found or layer
    return found


def computes_by_hook(module: nn.Module) -> bool:
    """Tell whether the weight is no parameter, so that a hook of unknown code must set it."""
    return isinstance(module, LAYERS) and "weight" not in module._parameters


def tensors_of(module: nn.Module, recurse: bool = True) -> Iterator[Tensor]:
    """Yield the module's parameters and buffers."""
    yield from module.parameters(recurse)
    yield from module.buffers(recurse)
