"""The walk over torch-pruning's graph ends where torch-pruning's own never would."""

from __future__ import annotations

import pytest
import torch
import torch_pruning
from torch import nn

from slimnet.groups import trace
from slimnet.groups.bounded_walk import EndlessWalkError, bounded_walk
from slimnet.groups.trace import NotFollowedError, Trace

EXAMPLE = torch.randn(2, 3, 4, 4)


@pytest.fixture
def chain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1),
        nn.Flatten(), nn.Linear(128, 10),
    ).eval()  # fmt: skip


@pytest.fixture
def graph(chain):
    return torch_pruning.DependencyGraph().build_dependency(chain, EXAMPLE, verbose=False)


def walked(graph, most_modules, most_channels):
    root = graph.model[2]
    prune = graph.get_pruner_of_module(root).prune_out_channels
    return bounded_walk(most_modules, most_channels)(graph, root, prune, list(range(8)))


def test_within_its_bounds_it_finds_what_torch_pruning_finds(graph):
    root = graph.model[2]
    prune = graph.get_pruner_of_module(root).prune_out_channels
    alone = graph.get_pruning_group(root, prune, list(range(8)))
    found = walked(graph, 100, 128)
    assert [(str(d), i) for d, i in found.items] == [(str(d), i) for d, i in alone.items]


def test_too_many_modules(graph):
    with pytest.raises(EndlessWalkError):
        walked(graph, 2, 128)


def test_too_many_channels(graph):
    with pytest.raises(EndlessWalkError):
        walked(graph, 100, 127)


def test_torch_pruning_stays_as_it_is(graph):
    before = torch_pruning.dependency.graph.Group
    walked(graph, 100, 128)
    assert torch_pruning.dependency.graph.Group is before


def test_each_endless_walk_halves_the_bound_of_the_next(chain, monkeypatch):
    monkeypatch.setattr(trace, "MOST_MODULES", 4)
    monkeypatch.setattr(trace, "LEAST_MOST_MODULES", 1)
    found = Trace(chain, EXAMPLE)
    with pytest.raises(NotFollowedError, match="does not end"):
        found.entries(found.model[2], 8)
    assert found._most_modules == 2
