"""Which layer widths pay on a runtime, and which width costs as much as which.

A runtime computes channels in blocks, such as 16 at once. A layer of 17 channels then takes as
long as one of 32, and the widths that pay are 16, 32, 48 and so on: below those the next channels
really save time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy

from slimnet.timing.machine_cache import recall, remember
from slimnet.timing.runtime import Runtime

STEP = 4  # channels between timed widths; half of the smallest block that was seen
MIN_SHARE_SAVED = 0.5  # of the time that channels should save; a guess: halfway to nothing
REORDERING = 3  # inputs, as seen in profiles
MIN_SAVED = 0.1  # less is noise: a small layer on a GPU takes the same time at every width
MAX_WIDTH = 128  # a guess: eight of the largest blocks of channels that were seen, 16
ROUNDS = 11  # of all widths in one try; a guess
MAX_TRIES = 5  # a guess: two alike are enough, and a busy machine may never give them
FILE = "paying_widths_1.json"  # the number is raised whenever something else is measured


def measure_paying_widths(runtime: Runtime, threads: int) -> tuple[int, ...]:
    """Return the widths up to 128, ascending, that a layer should have on this runtime.

    Two 3x3 convolutions, 64 to w and w to 64 channels, are timed for w in steps of four; see
    ``choose_widths``. They are measured until two tries in a row give the same widths; if none of
    five do, all five count together. The widths are cached in the user's cache folder, and this
    machine is not measured again: the same command shall take the same widths.

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
            break
        last = found
        all_rounds += rounds
    else:
        found = choose_widths(widths, _typical(all_rounds))
    remember(FILE, machine, found)
    return found


def _typical(rounds: Sequence[Sequence[float]]) -> list[float]:
    # other work on the machine only ever adds time: the lower quartile repeats, the median less
    return [float(quarter) for quarter in numpy.quantile(rounds, 0.25, axis=0)]


def recall_widths(machine: str) -> tuple[int, ...] | None:
    """Return the ascending widths cached for a machine, or None if there are no valid ones."""
    widths = recall(FILE, machine, tuple[int, ...])
    valid = widths and widths[0] > 0 and list(widths) == sorted(set(widths))
    return widths if valid else None


def choose_widths(widths: Sequence[int], times: Sequence[float]) -> tuple[int, ...]:
    """Return the widths that pay, ascending, from times at descending widths (any unit).

    Going down from the widest, a width pays if it saves at least half of the time that its
    channels should, seen from the last width that paid. Where the narrowest is hardly faster than
    the widest, all widths pay: none is better than another.
    """
    if times[0] - times[-1] < MIN_SAVED * times[0]:
        return tuple(sorted(widths))
    per_channel = (times[0] - times[-1]) / (widths[0] - widths[-1])
    paying = [0]
    for number in range(1, len(widths)):
        last = paying[-1]
        saved = times[last] - times[number]
        if saved >= MIN_SHARE_SAVED * per_channel * (widths[last] - widths[number]):
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


def width_in_effect(width: int, paying: Sequence[int]) -> int:
    """Return the width that a layer takes as long as: the narrowest paying one, not below its own.

    Above the measured widths the last step between two paying ones repeats.
    """
    if width <= 0 or not paying:
        return width
    if width <= paying[-1]:
        return min(w for w in paying if w >= width)
    step = _last_step(paying)
    return paying[-1] + -(-(width - paying[-1]) // step) * step


def inputs_in_effect(inputs: int, block: int) -> int:
    """Return the number of inputs that a convolution takes as long as to read.

    Fewer inputs than a block are brought into order first. That takes as long as three more, but
    altogether never longer than a whole block.
    """
    return min(inputs + REORDERING, block) if inputs < block else inputs


def narrow_widths(paying: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the widths worth going to, and those at which a layer's outputs are computed.

    Convolutions put out whole blocks of channels, but fewer inputs than one block are read in
    steps of four, see ``inputs_in_effect``. A width in these steps is worth it under the rule of
    ``choose_widths``: all are but the one next to the block.
    """
    block = paying_block(paying)
    worth, last = set(paying), block
    for width in reversed(range(STEP, block, STEP)):
        saved = inputs_in_effect(last, block) - inputs_in_effect(width, block)
        if saved >= MIN_SHARE_SAVED * (last - width):
            worth.add(width)
            last = width
    return tuple(sorted(worth)), tuple(width for width in paying if width >= block)


def paying_block(paying: Sequence[int]) -> int:
    """Return the channels that the runtime computes at once: the commonest step between widths."""
    steps = Counter(high - low for low, high in pairwise((0, *paying)))
    return steps.most_common(1)[0][0] if paying else 1


def widths_in_words(paying: Sequence[int]) -> tuple[bool, str]:
    """Return whether it pays to round widths to these, and a sentence that says why."""
    if paying_block(paying) <= STEP:
        return False, (
            f"no width that was timed (in steps of {STEP} channels) pays more than its neighbours, "
            "so that rounding widths gains nothing"
        )
    listed = ", ".join(map(str, paying))
    return True, f"the widths that pay are {listed}, and on in steps of {_last_step(paying)}"


def _last_step(paying: Sequence[int]) -> int:
    return paying[-1] - paying[-2] if len(paying) > 1 else 1
