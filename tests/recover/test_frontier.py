"""Running the same batches again and again while one layer after the other is changed."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from slimnet.groups import find_groups
from slimnet.recover import Targets, gather_moments, kept, resolve
from slimnet.recover.frontier import Frontier
from slimnet.recover.trace import first_call, trace_calls


@torch.no_grad()
@pytest.mark.parametrize("elements", [0, 500, 10**6])
def test_what_is_kept_changes_nothing_whatever_fits(residual, images, monkeypatch, elements):
    monkeypatch.setattr(kept, "MOST_ELEMENTS", elements)
    plain = copy.deepcopy(residual)
    calls = trace_calls(residual, lambda: residual(images[:2]))
    names = [
        name for name, module in residual.named_modules() if isinstance(module, torch.nn.Conv2d)
    ]
    with Frontier(residual, calls, lambda: [residual(images[:2])]) as found:
        for name in names:
            found.begin_at(first_call(calls, {name}))
            for part in images.split(2):
                got = found.run(float(part.sum()), partial(residual, part))
                assert torch.equal(got, plain(part))
            for model in (residual, plain):
                model.get_parameter(f"{name}.weight").mul_(0.9)
        assert (sum(found._kept._elements.values()) > 0) == (elements > 500)


def test_resolving_comes_out_the_same_with_or_without_it(trained, monkeypatch):
    model, splits = trained
    batches = splits.calibration.batches
    groups, _ = find_groups(model, batches[0][0][:2])
    moments = gather_moments(model, groups, batches)
    found = []
    for elements in (0, kept.MOST_ELEMENTS):
        monkeypatch.setattr(kept, "MOST_ELEMENTS", elements)
        slim = copy.deepcopy(model)
        with torch.no_grad():
            slim[0].weight[:3] = 0
        found.append((resolve(Targets(model, batches), slim, {}, moments), slim.state_dict()))
    assert found[0][0] == found[1][0] > 0
    assert all(torch.equal(value, found[1][1][key]) for key, value in found[0][1].items())
