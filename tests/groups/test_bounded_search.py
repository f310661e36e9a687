"""The bounded search ends in graphs where torch-pruning's own search never would."""

from __future__ import annotations

import pytest
import torch
import torch_pruning
from torch import nn

from slimnet.groups import graph as graph_module
from slimnet.groups.graph import EndlessSearchError, NotFollowedError, Trace, bounded_search

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


def searched(graph, max_modules, max_channels):
    root = graph.model[2]
    prune = graph.get_pruner_of_module(root).prune_out_channels
    return bounded_search(max_modules, max_channels)(graph, root, prune, list(range(8)))


def test_within_its_bounds_it_finds_what_torch_pruning_finds(graph):
    root = graph.model[2]
    prune = graph.get_pruner_of_module(root).prune_out_channels
    alone = graph.get_pruning_group(root, prune, list(range(8)))
    found = searched(graph, 100, 128)
    assert [(str(d), i) for d, i in found.items] == [(str(d), i) for d, i in alone.items]


def test_too_many_modules(graph):
    with pytest.raises(EndlessSearchError):
        searched(graph, 2, 128)


def test_too_many_channels(graph):
    with pytest.raises(EndlessSearchError):
        searched(graph, 100, 127)


def test_torch_pruning_stays_as_it_is(graph):
    before = torch_pruning.dependency.graph.Group
    searched(graph, 100, 128)
    assert torch_pruning.dependency.graph.Group is before


def test_each_endless_search_halves_the_bound_of_the_next(chain, monkeypatch):
    monkeypatch.setattr(graph_module, "MAX_MODULES", 4)
    monkeypatch.setattr(graph_module, "MIN_MAX_MODULES", 1)
    found = Trace(chain, EXAMPLE)
    with pytest.raises(NotFollowedError, match="does not end"):
        found.entries(found.model[2], 8)
    assert found._max_modules == 2
