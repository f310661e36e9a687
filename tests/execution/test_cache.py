"""Running the same batches again and again while one layer after the other is changed."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from slimnet.execution.cache import PrefixCache
from slimnet.execution.replay import first_call, replaying, trace_calls
from slimnet.execution.running import MemoryBudget
from slimnet.repair.refit import refit
from slimnet.repair.teacher import TeacherOutputs


@torch.no_grad()
@pytest.mark.parametrize("max_bytes", [0, 2000, 10**7])
def test_the_cache_changes_nothing_whatever_fits(residual, images, max_bytes):
    plain = copy.deepcopy(residual)
    calls = trace_calls(residual, lambda: residual(images[:2]))
    names = [
        name for name, module in residual.named_modules() if isinstance(module, torch.nn.Conv2d)
    ]
    with replaying(residual, calls) as replay:
        cache = PrefixCache(replay, max_bytes, lambda: (residual(images[:2]),))
        for name in names:
            cache.begin_at(first_call(calls, {name}))
            for part in images.split(2):
                got = cache.run(float(part.sum()), partial(residual, part))
                assert torch.equal(got, plain(part))
            assert cache._cache.nbytes <= max_bytes
            for model in (residual, plain):
                model.get_parameter(f"{name}.weight").mul_(0.9)
        assert (cache._cache.nbytes > 0) == (max_bytes > 2000)


def test_a_refit_comes_out_the_same_with_or_without_memory(trained):
    model, splits = trained
    batches = splits.calibration.batches
    found = []
    for memory in (MemoryBudget(0), MemoryBudget()):
        slim = copy.deepcopy(model)
        with torch.no_grad():
            slim[0].weight[:3] = 0
        teacher = TeacherOutputs(model, batches, memory=memory)
        found.append((refit(teacher, slim, {"0": {"out": ()}}), slim.state_dict()))
    assert found[0][0] == found[1][0] > 0
    assert all(torch.equal(value, found[1][1][key]) for key, value in found[0][1].items())


def test_caches_that_live_at_the_same_time_share_the_budget():
    memory = MemoryBudget(10**8)
    for last in (memory.trials, memory.activations):
        assert memory.activations + memory.teacher_outputs + last <= memory.total_bytes
