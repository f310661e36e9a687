"""The first steps of a search, for what a benchmark measures of it before its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from torch import nn

from slimnet.groups import Group
from slimnet.records import Splits, Step
from slimnet.search import search
from slimnet.settings import Settings


class EnoughError(Exception):
    """As many steps as were asked for are done."""


def search_first_steps(
    many: int,
    model: nn.Module,
    groups: Sequence[Group],
    splits: Splits,
    settings: Settings,
    told: Callable[[Step], None] = lambda _: None,
) -> list[Step]:
    """Return the first steps of a search, which ends there; ``told`` is called after each."""
    steps: list[Step] = []

    def enough(step: Step) -> None:
        steps.append(step)
        told(step)
        if len(steps) == many:
            raise EnoughError

    with suppress(EnoughError):
        search(model, groups, splits, settings, enough)
    return steps
