"""Which layer widths pay on a runtime: those below which the next channels really save time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy

from slimnet.measure.kept_widths import recall_widths, remember_widths
from slimnet.measure.machine import measured_on
from slimnet.measure.pair_timers import pair_timer

WIDEST = 128
STEP = 4
ROUNDS = 11
MOST_TRIES = 5
WORTH = 0.5
REORDERING = 3  # inputs, as seen in profiles
LEAST_SAVED = 0.1  # less is noise: a small layer on a GPU takes the same time at every width


def measure_paying_widths(runtime: str, threads: int) -> tuple[int, ...]:
    """Return the widths up to 128, ascending, that a layer should have on this runtime.

    Two 3x3 convolutions, 64 to w and w to 64 channels, are timed for w in steps of four. Going
    down from the widest, a width pays when it saves at least half of the time that its channels
    should, seen from the last width that paid. What was measured twice alike is kept in the
    user's cache folder, and not measured again on this machine; what a busy machine blurs is not.

    Raises:
        InputError: ONNX Runtime cannot start the runtime.
    """
    machine = measured_on(runtime, threads)
    kept = recall_widths(machine)
    if kept is not None:
        return kept
    widths = list(range(WIDEST, 0, -STEP))
    timers = [pair_timer(width, runtime, threads) for width in widths]
    found: tuple[int, ...] = ()
    rounds: list[list[float]] = []
    for _ in range(MOST_TRIES):
        # interleaved, so that a slow moment hits all widths alike
        new = [[timer() for timer in timers] for _ in range(ROUNDS)]
        before, found = found, choose_widths(widths, _typical(new))
        if found == before:
            remember_widths(machine, found)
            return found
        rounds += new
    return choose_widths(widths, _typical(rounds))


def choose_widths(widths: Sequence[int], times: Sequence[float]) -> tuple[int, ...]:
    """Return the widths that pay, ascending, from times at descending widths (any unit).

    All do, as well as any, where the narrowest is hardly faster than the widest.
    """
    if times[0] - times[-1] < LEAST_SAVED * times[0]:
        return tuple(sorted(widths))
    per_channel = (times[0] - times[-1]) / (widths[0] - widths[-1])
    paying = [0]
    for number in range(1, len(widths)):
        last = paying[-1]
        saved = times[last] - times[number]
        if saved >= WORTH * per_channel * (widths[last] - widths[number]):
            paying.append(number)
    return tuple(sorted(widths[number] for number in paying))


def next_lower_width(width: int, paying: Sequence[int]) -> int:
    """Return the widest paying width below ``width``, or 0 if there is none.

    Above the measured widths the last step between two paying ones repeats.
    """
    if not paying:
        return width - 1
    if width <= paying[-1]:
        return max((w for w in paying if w < width), default=0)
    step = _last_step(paying)
    return paying[-1] + (width - 1 - paying[-1]) // step * step


def narrow_widths(paying: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the widths worth going to, and those at which a layer's outputs are computed.

    Convolutions put out whole blocks of channels, but fewer inputs than one block are read in steps
    of four, see ``inputs_in_effect``. Such a width is worth it on the terms of ``choose_widths``,
    if it saves half of the time that its channels should: all but the one next to the block.
    """
    block = paying_block(paying)
    worth, last = set(paying), block
    for width in reversed(range(STEP, block, STEP)):
        saved = inputs_in_effect(last, block) - inputs_in_effect(width, block)
        if saved >= WORTH * (last - width):
            worth.add(width)
            last = width
    return tuple(sorted(worth)), tuple(width for width in paying if width >= block)


def inputs_in_effect(inputs: int, block: int) -> int:
    """Return how many inputs' worth of time a convolution takes to read these.

    Fewer than a block of channels are brought in order first, which takes as long as three more,
    though never longer than a whole block.
    """
    return min(inputs + REORDERING, block) if inputs < block else inputs


def paying_block(paying: Sequence[int]) -> int:
    """Return the commonest step between widths that pay: what the runtime computes at once."""
    steps = Counter(high - low for low, high in pairwise((0, *paying)))
    return steps.most_common(1)[0][0] if paying else 1


def widths_in_words(paying: Sequence[int]) -> tuple[bool, str]:
    """Return whether it pays to round widths to these, and a sentence that tells why."""
    if paying_block(paying) <= STEP:
        return False, (
            f"no width that was timed (in steps of {STEP} channels) pays more than its neighbours, "
            "so that rounding widths gains nothing"
        )
    listed = ", ".join(map(str, paying))
    return True, f"the widths that pay are {listed}, and on in steps of {_last_step(paying)}"


def width_in_effect(width: int, paying: Sequence[int]) -> int:
    """Return the narrowest width that pays and is not below ``width``: what it costs as much as.

    Above the measured widths the last step between two paying ones repeats.
    """
    if width <= 0 or not paying:
        return width
    if width <= paying[-1]:
        return min(w for w in paying if w >= width)
    step = _last_step(paying)
    return paying[-1] + -(-(width - paying[-1]) // step) * step


def _last_step(paying: Sequence[int]) -> int:
    return paying[-1] - paying[-2] if len(paying) > 1 else 1


def _typical(rounds: Sequence[Sequence[float]]) -> list[float]:
    # other work on the machine only ever adds time: the lower quartile repeats, the median less
    return [float(quarter) for quarter in numpy.quantile(rounds, 0.25, axis=0)]
