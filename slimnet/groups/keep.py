"""What the user wants kept whole: groups with a layer that matches a pattern are frozen."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from slimnet.errors import InputError
from slimnet.groups.group import Group
from slimnet.records import Frozen


def keep_layers(
    groups: Sequence[Group], frozen: Sequence[Frozen], patterns: Sequence[str]
) -> tuple[list[Group], list[Frozen]]:
    """Return the groups that may still lose channels, and all frozen layers; changes neither.

    Args:
        groups: as ``find_groups`` found them.
        frozen: the layers that can lose nothing anyhow; a pattern may match these too.
        patterns: globs over module names, such as "layer1.*". A module that matches is kept with
            everything inside it, and with every layer that is coupled to it.

    Raises:
        InputError: a pattern matches no layer.
    """
    layers = sorted({g.layer for group in groups for g in group.gates} | {f.layer for f in frozen})
    for pattern in patterns:
        if not any(_matches(layer, pattern) for layer in layers):
            raise InputError(f"keep {pattern!r} matches no layer{_nearest(pattern, layers)}")
    open_groups: list[Group] = []
    kept: dict[str, str] = {}
    for group in groups:
        reasons = _reasons([gate.layer for gate in group.gates], patterns)
        if not reasons:
            open_groups.append(group)
        kept |= reasons
    # a depthwise convolution behind a concatenation is in several groups
    still_open = {gate.layer for group in open_groups for gate in group.gates}
    return open_groups, [
        *frozen,
        *(
            Frozen(layer, _channels(layer, groups), reason)
            for layer, reason in kept.items()
            if layer not in still_open
        ),
    ]


def _reasons(layers: Sequence[str], patterns: Sequence[str]) -> dict[str, str]:
    """Return why each of these coupled layers is kept; nothing if none of them matches."""
    asked = {
        layer: f"kept as asked (--keep {pattern})"
        for layer in layers
        for pattern in reversed(patterns)
        if _matches(layer, pattern)
    }
    others = [layer for layer in layers if layer not in asked] if asked else []
    with_whom = next((f"coupled to {layer}, {reason}" for layer, reason in asked.items()), "")
    return asked | dict.fromkeys(others, with_whom)


def _matches(layer: str, pattern: str) -> bool:
    """Tell whether the pattern matches the layer or a module that it is in."""
    parts = layer.split(".")
    return any(fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))


def _channels(layer: str, groups: Iterable[Group]) -> int:
    return sum(
        len(group.producer(layer).index)
        for group in groups
        if any(gate.layer == layer for gate in group.gates)
    )


def _nearest(pattern: str, layers: Sequence[str]) -> str:
    cutoff = 0.6 if set(pattern) & set("*?[") else 0
    close = difflib.get_close_matches(pattern, layers, n=1, cutoff=cutoff)
    return f"; the nearest is {close[0]!r}" if close else ""
