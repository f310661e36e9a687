"""Which layer widths pay on a runtime: those below which the next channels really save time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy

from slimnet.errors import InputError
from slimnet.load import partial_file
from slimnet.timing.runtime import Runtime
from slimnet.timing.widths import STEP, choose_widths

MAX_WIDTH = 128  # a guess: eight of the largest blocks of channels that were seen, 16
ROUNDS = 11  # of all widths in one try; a guess
MAX_TRIES = 5  # a guess: two alike are enough, and a busy machine may never give them
FILE = "paying_widths_1.json"  # the number is raised whenever something else is measured
# a cache that cannot be used is no error; RuntimeError: no home folder, or too deep a JSON
CACHE_ERRORS = (OSError, ValueError, RuntimeError)


def measure_paying_widths(runtime: Runtime, threads: int) -> tuple[int, ...]:
    """Return the widths up to 128, ascending, that a layer should have on this runtime.

    Two 3x3 convolutions, 64 to w and w to 64 channels, are timed for w in steps of four; see
    ``choose_widths``. If two tries in a row give the same widths, these are cached in the user's
    cache folder, and this machine is not measured again.

    Raises:
        RuntimeDoesNotStart: the runtime does not start here.
    """
    machine = runtime.measured_on(threads)
    cached = recall_widths(machine)
    if cached is not None:
        return cached
    widths = list(range(MAX_WIDTH, 0, -STEP))
    timers = [runtime.pair_timer(width, threads) for width in widths]
    last: tuple[int, ...] = ()
    all_rounds: list[list[float]] = []
    for _ in range(MAX_TRIES):
        # interleaved, so that a slow moment hits all widths alike
        rounds = [[timer() for timer in timers] for _ in range(ROUNDS)]
        found = choose_widths(widths, _typical(rounds))
        if found == last:
            remember_widths(machine, found)
            return found
        last = found
        all_rounds += rounds
    return choose_widths(widths, _typical(all_rounds))


def _typical(rounds: Sequence[Sequence[float]]) -> list[float]:
    # other work on the machine only ever adds time: the lower quartile repeats, the median less
    return [float(quarter) for quarter in numpy.quantile(rounds, 0.25, axis=0)]


def recall_widths(machine: str) -> tuple[int, ...] | None:
    """Return the ascending widths cached for a machine, or None if there are no valid ones."""
    widths = _read_cache().get(machine)
    if not isinstance(widths, list) or not all(type(width) is int for width in widths):
        return None
    valid = bool(widths) and widths[0] > 0 and widths == sorted(set(widths))
    return tuple(widths) if valid else None


def remember_widths(machine: str, widths: Sequence[int]) -> None:
    """Add the widths of a machine to the cache, where its folder can be written."""
    with suppress(InputError, *CACHE_ERRORS):
        file = _cache_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        content = {**_read_cache(), machine: list(widths)}
        with partial_file(file) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _read_cache() -> Mapping[str, Any]:
    with suppress(*CACHE_ERRORS):
        content = json.loads(_cache_file().read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def _cache_file() -> Path:
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # the XDG specification says to ignore a path that is not absolute
    folder = given if given.is_absolute() else Path.home() / ".cache"
    return folder / "slimnet" / FILE
