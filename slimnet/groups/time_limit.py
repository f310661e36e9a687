"""A time limit for pure Python code that may never end."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class OutOfTimeError(Exception):
    """The code within ``time_limit`` did not end in time."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTimeError inside the block once ``seconds`` have passed, in whatever thread.

    Only code that returns to the interpreter now and then can be stopped.
    """
    thread, lock = threading.get_ident(), threading.Lock()
    state = {"done": False, "fired": False}

    def fire() -> None:
        with lock:
            if not state["done"]:
                state["fired"] = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread), ctypes.py_object(OutOfTimeError)
                )

    timer = threading.Timer(seconds, fire)
    timer.daemon = True
    timer.start()
    try:
        yield
        with lock:
            state["done"] = True
        if state["fired"]:
            # the exception is on its way: let it arrive here, not in the caller's code
            time.sleep(1)
    finally:
        with lock:
            state["done"] = True
        timer.cancel()
