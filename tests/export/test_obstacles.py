"""Networks that hold state of earlier runs are traced; what stands in the way is named."""

import pytest
import torch
from torch import nn

from slimnet.errors import InputError
from slimnet.export.tracing import trace


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 1)
        self.shape, self.grid, self.grids = None, torch.zeros(0), {}


class CachesShape(Network):
    def forward(self, x):
        x = self.layer(x)
        if self.shape != x.shape:
            self.shape, self.grid = x.shape, torch.arange(x.shape[3]).float()
        return x + self.grid


class CachesBySize(Network):
    def forward(self, x):
        x = self.layer(x)
        if x.shape[2:] not in self.grids:
            self.grids[x.shape[2:]] = torch.arange(x.shape[3]).float()
        return x + self.grids[x.shape[2:]]


class CachesForBatch(Network):
    def forward(self, x):
        x = self.layer(x)
        if self.grid.shape[0] != x.shape[0]:
            self.grid = torch.arange(x.shape[3]).float().expand(x.shape)
        return x + self.grid


class AsksForThree(Network):
    def forward(self, x):
        return self.layer(x) * (2 if x.shape[0] == 3 else 1)


class TakesTwo(Network):
    def forward(self, x):
        return self.layer(x).view(2, -1)


class LooksAtValues(Network):
    def forward(self, x):
        return self.layer(x) if x.mean() > 0 else x


class LeavesTorch(Network):
    def forward(self, x):
        return torch.tensor(self.layer(x).numpy())


@pytest.mark.parametrize("kind", [CachesShape, CachesBySize, CachesForBatch])
@pytest.mark.parametrize("images", [2, 3, 5])
@torch.no_grad()
def test_a_network_that_has_run_before_takes_any_batch_size(kind, images):
    network = kind().eval()
    network(torch.zeros(images, 1, 4, 6))
    attributes = {name: id(value) for name, value in vars(network).items()}
    program = trace(network, torch.zeros(2, 1, 4, 6)).module()
    assert {name: id(value) for name, value in vars(network).items()} == attributes
    for count in (1, 2, 3, 7):
        inputs = torch.randn(count, 1, 4, 6)
        torch.testing.assert_close(program(inputs), network(inputs))


@pytest.mark.parametrize(
    ("kind", "words", "line"),
    [
        (AsksForThree, "any batch size", "(2 if x.shape[0] == 3 else 1)"),
        (TakesTwo, "any batch size", "return self.layer(x).view(2, -1)"),
        (LooksAtValues, "values in a tensor", "if x.mean() > 0 else x"),
        (LeavesTorch, ".numpy()", "torch.tensor(self.layer(x).numpy())"),
    ],
)
def test_the_message_names_the_line_that_stands_in_the_way(kind, words, line):
    with pytest.raises(InputError) as caught:
        trace(kind(), torch.zeros(2, 1, 4, 6))
    message = str(caught.value)
    assert message.startswith(f"cannot export {kind.__name__}: ")
    assert words in message
    assert line in message
    assert "(test_obstacles.py, line " in message
    assert "\n" not in message
