"""A layer that has only some of a group's units never loses all of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimnet.groups import find_groups, output_channels
from slimnet.search import search
from slimnet.settings import Settings


class Uneven(nn.Module):
    """Each unit of one group is made by two layers, one of which has only the first two."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Conv2d(1, 8, 1)
        self.large = nn.Conv2d(1, 2, 3, padding=1)
        self.small = nn.Conv2d(1, 6, 1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = (self.both(x) + torch.cat([self.large(x), self.small(x)], 1)).relu()
        return self.head(x).mean((2, 3))


@pytest.mark.parametrize(
    "dials",
    [{"step": 1}, {"step": 5}, {"objective": "params"}, {"objective": "macs"}, {"round_to": 2}],
    ids=str,
)
def test_no_layer_is_emptied_whatever_the_budget(trained, dials):
    torch.manual_seed(0)
    model = Uneven().eval()
    example = next(iter(trained[1].calibration.batches))[0]
    groups, _ = find_groups(model, example)
    assert {gate.layer for group in groups for gate in group.gates} == {"both", "large", "small"}
    settings = Settings(max_drop=100, confidence=0.5, oracle_k=3, **dials)
    _, slim = search(model, groups, trained[1], settings)
    assert min(output_channels(slim).values()) >= 1
    assert slim(example).isfinite().all()
