"""Why torch.export cannot trace a network, in one line that names the line of code at fault."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from slimnet.load import line_of_code

GUARDS = "torch.fx.experimental.symbolic_shapes"  # the logger of torch's that notes each guard
GUARD = "[guard added]"
DECISIVE = re.compile(r"\b(Eq|Ne|Mod)\(")  # a mere bound, such as "at least 2", does no harm


def reason_of(error: Exception, batch: str, guards: list[str]) -> str:
    """Return in one line why a network cannot be traced.

    Args:
        error: what torch.export raised.
        batch: the name of the axis along the images.
        guards: the lines of code that ``noted_guards`` found.
    """
    reason = deepest_cause(error)
    if f"({batch})!" in reason:
        where = f": {guards[0]}" if guards else ""
        return f"it must take any batch size, and its forward does not{where}"
    where = line_of_code(_stack(error))
    if "data-dependent" in reason:
        reason = (
            "its forward depends on the values in a tensor, as `if x.mean() > 0` does, and a file "
            "can hold only one of the branches"
        )
    return f"{reason}: {where}" if where else reason


def _stack(error: BaseException) -> Iterator[traceback.FrameSummary]:
    """Give the frames of an error and of its causes, the innermost of the deepest cause last."""
    cause: BaseException | None = error
    while cause is not None:
        yield from traceback.extract_tb(cause.__traceback__)
        cause = cause.__cause__


def deepest_cause(error: BaseException) -> str:
    """Return the first line of the deepest cause that has a message, without colours."""
    line = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(cause)).strip()
        line = text.splitlines()[0] if text else line
        cause = cause.__cause__
    return line


@contextmanager
def noted_guards() -> Iterator[list[str]]:
    """Give a list that gets the lines of code that ask for the batch size in the block.

    torch logs a guard where code compares a size that is open, and tells no line in its error.
    Where a later torch logs otherwise, the list stays empty.
    """
    lines: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if GUARD in message and DECISIVE.search(message):
            lines.extend(filter(None, [line_of_code(traceback.extract_stack())]))
        return False  # nothing is printed

    logger = logging.getLogger(GUARDS)
    level, disabled = logger.level, logging.root.manager.disable
    logger.addFilter(note)
    logger.setLevel(logging.INFO)
    logging.disable(logging.NOTSET)
    try:
        yield lines
    finally:
        logging.disable(disabled)
        logger.setLevel(level)
        logger.removeFilter(note)
