"""How long each stage took, told as it happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from slimnet.records import Step

Progress = Callable[["str | Step"], None]


class StageClock:
    """Tells ``progress`` which stage begins, and keeps the ``seconds`` of each."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress: Progress = progress or (lambda _: None)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the block as ``stage``."""
        self.progress(stage)
        started = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - started
