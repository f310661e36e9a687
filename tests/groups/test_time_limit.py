"""The time limit ends code that never would, in any thread."""

from __future__ import annotations

import threading
import time

import pytest

from slimnet.groups.time_limit import OutOfTimeError, time_limit


def spin():
    while True:
        pass


def test_endless_code_is_stopped():
    started = time.perf_counter()
    with pytest.raises(OutOfTimeError), time_limit(0.05):
        spin()
    assert time.perf_counter() - started < 2


def test_endless_code_is_stopped_in_another_thread():
    outcome = []

    def work():
        try:
            with time_limit(0.05):
                spin()
        except OutOfTimeError:
            outcome.append("stopped")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(5)
    assert outcome == ["stopped"]


def test_code_in_time_is_left_alone():
    with time_limit(0.05):
        value = 1
    time.sleep(0.1)
    assert value == 1
