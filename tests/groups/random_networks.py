"""Random networks: a plan drawn by hypothesis, and the module that it makes.

A network is nested tuples, which read and shrink well: ``network([("conv", 4, 3, 1, 1, 0)], ...)``
makes it again. Any plan makes a network that runs: numbers that do not fit are brought to ones that
do, with the shape that a run on zeros shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from random_layers import (
    Add,
    Apart,
    Excite,
    Heads,
    Join,
    PadChannels,
    Parts,
    Scale,
    SpaceAttention,
    Twice,
    activation,
    convolution,
    norm,
    pool,
)
from torch import Tensor, nn

Layer = tuple[Any, ...]
IMAGES, LARGEST = (2, 3, 6, 6), 12
WIDTHS = st.sampled_from((4, 6, 8, 1, 3))
ACTIVATIONS = ("relu", "in place", "gelu", "sigmoid", "prelu", "slopes", "softmax", "hardswish")
NORMS = ("batch", "group", "pairs", "each", "single", "image", "channels", "instance",
         "instance affine", "instance running", "plain batch")  # fmt: skip
WAYS = ("gate", "glu", "maximum", "slices", "one half", "order", "steps", "neighbours")
SIMPLE = st.one_of(
    st.tuples(
        st.just("conv"), WIDTHS, st.sampled_from((1, 3)), st.sampled_from((1, 2)),
        st.sampled_from((1, 2)), st.integers(0, 3),
    ),
    st.tuples(st.just("transposed"), WIDTHS, st.integers(0, 2)),
    st.tuples(st.just("depthwise"), st.sampled_from((1, 2))),
    st.tuples(st.just("norm"), st.sampled_from(NORMS)),
    st.tuples(st.just("act"), st.sampled_from(ACTIVATIONS)),
    st.tuples(st.just("pool"), st.sampled_from(("max", "avg", "pad", "up"))),
    st.tuples(st.just("shuffle"), st.sampled_from((2, 3))),
    st.tuples(st.just("pad channels"), st.integers(1, 2), st.integers(0, 2)),
    st.tuples(st.just("excite"), st.booleans()),
    st.tuples(st.just("scale")),
    st.tuples(st.just("space attention")),
    st.tuples(st.just("heads"), st.integers(1, 4), st.integers(1, 3),
              st.sampled_from(("inferred", "shared", "fixed"))),
    st.tuples(st.just("pixel shuffle")),
)  # fmt: skip


def _nested(inner: st.SearchStrategy[Layer]) -> st.SearchStrategy[Layer]:
    several = st.lists(inner, min_size=1, max_size=3).map(tuple)
    two = st.tuples(several, several)
    return st.one_of(
        st.tuples(st.just("residual"), several, st.sampled_from(("project", "pad"))),
        st.tuples(st.just("concat"), two, st.booleans()),
        st.tuples(st.just("split"), two, st.sampled_from(("chunk", "split", "slice"))),
        st.tuples(st.just("gate"), several),
        st.tuples(st.just("twice"), several),
        st.tuples(st.just("parts"), st.sampled_from((2, 2, 3, 4)), st.sampled_from(WAYS), several),
    )


LAYERS = st.lists(st.recursive(SIMPLE, _nested, max_leaves=5), min_size=1, max_size=6).map(tuple)
HEAD = st.sampled_from(("pooled", "flat", "conv", "hidden", "features"))
HEADS = st.one_of(*3 * [st.tuples(HEAD)], st.tuples(HEAD, HEAD))
FROZEN = st.sampled_from((0, 0, 2, 1))
NETWORKS = st.tuples(LAYERS, HEADS, FROZEN)


class Network(nn.Module):
    """A trunk and its heads; the output is a tensor, or a tuple if there are several heads."""

    def __init__(self, trunk: nn.Module, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.trunk, self.heads = trunk, nn.ModuleList(heads)

    def forward(self, x: Tensor) -> Any:
        x = self.trunk(x)
        outputs = tuple(head(x) for head in self.heads)
        return outputs if len(outputs) > 1 else outputs[0]


def network(layers: Sequence[Layer], heads: Sequence[str], frozen: int) -> Network:
    """Return the network; of its modules every ``frozen``-th may not learn (0: all may)."""
    trunk, shape = _sequence((("conv", 8, 3, 1, 1, 0), *layers), torch.Size(IMAGES))
    made = Network(trunk, [_head(kind, shape) for kind in heads]).eval()
    for number, module in enumerate(made.modules()):
        if frozen and number % frozen == 1 % frozen:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
    return made


def _shape(module: nn.Module, shape: torch.Size) -> torch.Size:
    with torch.no_grad():
        found: Tensor = module.eval()(torch.zeros(shape))
    return found.shape


def _sequence(layers: Sequence[Layer], shape: torch.Size) -> tuple[nn.Sequential, torch.Size]:
    made = nn.Sequential()
    for layer in layers:
        module = _layer(layer, shape)
        made.append(module)
        shape = _shape(module, shape)
    return made, shape


def _layer(layer: Layer, shape: torch.Size) -> nn.Module:
    kind, *numbers = layer
    channels, size = shape[1], shape[2]
    if kind == "conv":
        return convolution(channels, *numbers)
    if kind == "transposed":
        width, groups = numbers
        stride = 2 if 2 * size <= LARGEST else 1
        return convolution(channels, width, stride, stride, 1, groups, transposed=True)
    if kind == "depthwise":
        return convolution(channels, channels, 3, numbers[0], 1, groups=channels, exactly=True)
    if kind == "shuffle":
        return nn.ChannelShuffle(numbers[0]) if channels % numbers[0] == 0 else nn.Identity()
    if kind == "pixel shuffle":
        fits = channels % 4 == 0 and 2 * size <= LARGEST
        return nn.PixelShuffle(2) if fits else nn.Identity()
    simple = {
        "norm": lambda: norm(numbers[0], channels, size),
        "act": lambda: activation(numbers[0], channels),
        "pool": lambda: pool(numbers[0], size, LARGEST),
        "pad channels": lambda: PadChannels(*numbers),
        "excite": lambda: Excite(channels, linear=numbers[0]),
        "scale": lambda: Scale(channels),
        "space attention": SpaceAttention,
        "heads": lambda: Heads(channels, *numbers),
    }
    return simple[kind]() if kind in simple else _branches(kind, numbers, shape)


def _branches(kind: str, numbers: Sequence[Any], shape: torch.Size) -> nn.Module:
    channels = shape[1]
    if kind == "concat":
        branches = [_sequence(part, shape)[0] for part in numbers[0]]
        return Join([*branches, nn.Identity()] if numbers[1] else branches)
    if kind == "split":
        if channels < 2:
            return nn.Identity()
        first = (channels + 1) // 2
        widths = (first, channels - first)
        parts = zip(numbers[0], widths, strict=True)
        made = [_sequence(part, torch.Size((shape[0], w, *shape[2:])))[0] for part, w in parts]
        return Apart(made, widths, numbers[1])
    if kind == "parts":
        parts, way, layers = numbers
        if channels % parts:
            return nn.Identity()
        part = torch.Size((shape[0], channels // parts, *shape[2:]))
        branch, after = _sequence(layers, part)
        back = nn.Sequential(branch, nn.Conv2d(after[1], part[1], 1))
        return Parts(back, parts, way)
    branch, after = _sequence(numbers[0], shape)
    if kind == "residual" and numbers[1] == "pad" and after[1] >= channels:
        return Add(branch, PadChannels(0, after[1] - channels) if after[1] > channels else None)
    if kind == "residual":
        return Add(branch, nn.Conv2d(channels, after[1], 1) if after[1] != channels else None)
    back = nn.Sequential(branch, nn.Conv2d(after[1], channels, 1))
    if kind == "gate":
        return Add(back, None, product=True)
    return Twice(back) if after[2:] == shape[2:] else back  # some norms know one size only


def _head(kind: str, shape: torch.Size) -> nn.Module:
    channels, pixels = shape[1], shape[2] * shape[3]
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return {
        "pooled": lambda: nn.Sequential(*pooled, nn.Linear(channels, 3)),
        "flat": lambda: nn.Sequential(nn.Flatten(), nn.Linear(channels * pixels, 3)),
        "conv": lambda: nn.Conv2d(channels, 3, 1),
        "features": nn.Identity,
        "hidden": lambda: nn.Sequential(
            *pooled, nn.Linear(channels, 6), nn.ReLU(), nn.Linear(6, 3)
        ),
    }[kind]()
