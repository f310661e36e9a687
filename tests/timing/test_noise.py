"""When timings cannot be trusted, in words."""

from __future__ import annotations

import numpy as np
import pytest

from slimnet.timing.latency import noise_warning, summarise

QUIET = list(1 + 0.01 * np.random.default_rng(0).random(40))
BUSY = [time if number % 3 else 4 * time for number, time in enumerate(QUIET)]
JUMPING = [1 if number % 2 else 3 + time for number, time in enumerate(QUIET)]


def warning(original, slim):
    return noise_warning(summarise("onnxruntime-cpu", 1, 8, [(original, slim)], seed=0))


def test_a_quiet_machine_is_trusted_whether_or_not_there_is_a_difference():
    assert warning(QUIET, QUIET[::-1]) is None
    assert warning([2 * time for time in QUIET], QUIET) is None


@pytest.mark.parametrize("samples", [BUSY, JUMPING])
def test_a_noisy_one_is_not(samples):
    for both in ((samples, QUIET), (QUIET, samples)):
        told = warning(*both)
        assert "onnxruntime-cpu, batch 8: the machine is too noisy to tell" in told
        assert "more samples than 40" in told


def test_drift_that_hits_both_alike_is_noise_too():
    drifting = list(np.linspace(1, 3, 40))
    assert "spread over" in warning(drifting, drifting)


@pytest.mark.parametrize(("count", "told"), [(1, "1 timing of"), (9, "9 timings of")])
def test_too_few_timings_tell_nothing_however_alike(count, told):
    assert told in warning(QUIET[:count], QUIET[:count])
