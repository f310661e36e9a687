import pytest
import torch
from torch import nn

from slimnet.load import attributes_kept, copied, inference


class Remembers(nn.Module):
    """Writes all kinds of attributes in its forward."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
        self.last, self.maps, self.grids = None, [], {}
        self.register_buffer("grid", torch.zeros(0))

    def forward(self, x):
        self.last = self.norm(self.layer(x))
        self.new = x.shape
        self.maps.append(self.last)
        self.grids[len(x)] = self.last
        self.grid = torch.arange(len(x))
        return self.last


@pytest.fixture
def network():
    return Remembers().eval()


def written(network):
    return network.last, network.maps, network.grids, network.grid.tolist(), hasattr(network, "new")


NOTHING = (None, [], {}, [], False)


def test_what_a_forward_writes_is_undone(network):
    lists = network.maps, network.grids
    with attributes_kept(network):
        network(torch.ones(3, 2))
        assert network.last is not None
    assert written(network) == NOTHING
    assert (network.maps, network.grids) == lists
    assert network.maps is lists[0]


def test_it_is_undone_after_a_failure_too(network):
    with pytest.raises(RuntimeError, match="shapes"), attributes_kept(network):
        network.layer(network(torch.ones(3, 2)).T)
    assert written(network) == NOTHING


def test_what_was_there_before_stays(network):
    network(torch.ones(4, 2))
    last = network.last
    with attributes_kept(network):
        network(torch.ones(3, 2))
    assert network.last is last
    assert network.maps == [last]
    assert list(network.grids) == [4]
    assert network.grid.tolist() == [0, 1, 2, 3]


def test_training_keeps_what_it_learned(network):
    network.train()
    with attributes_kept(network):
        network(torch.ones(3, 2))
        network.grid = torch.ones(1)
    assert network.norm.num_batches_tracked == 1
    assert network.grid.tolist() == [1]


def test_tensors_of_inference_mode_do_not_reach_a_graph(network):
    with inference(network):
        assert network(torch.ones(3, 2)).is_inference()
    assert written(network) == NOTHING


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_a_network_that_keeps_computed_tensors_can_be_copied(mode, network):
    with mode():
        network(torch.ones(3, 2))
    other = copied(network)
    assert torch.equal(other.last, network.last)
    assert not other.last.requires_grad
    assert not other.last.is_inference()
    assert other.maps[0] is other.last
    assert other.last is not network.last


def test_a_copy_shares_what_it_is_told_to(network):
    other = copied(network, {id(network.norm): network.norm})
    assert other.norm is network.norm
    assert other.layer is not network.layer


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.images = 0

    def forward(self, x):
        self.images += len(x)
        return x


def test_a_number_is_no_tensor_and_stays():
    network = Counts()
    with attributes_kept(network):
        network(torch.ones(3, 2))
    assert network.images == 3
