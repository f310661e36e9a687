"""Every kind of layer and operation counts the multiplications that a count by hand gives."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional

from slimnet.execution.size import measure_size

STEPS, READ, UNITS = 7, 4, 5


class Code(nn.Module):
    """A network that is one function of its input; with ``data``, it must run with data."""

    def __init__(self, function, data=False, **parts):
        super().__init__()
        self.function, self.data = function, data
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        if self.data:
            float(x.sum())  # tensors without data raise here
        return self.function(self, x)


def conv_by_hand(layer, reads, out):
    """Count one multiplication for each pair of a weight and the value that it meets, in loops."""
    transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
    places = reads if transposed else out  # where the kernel is laid on
    count = 0
    for _ in product(*map(range, places), *map(range, layer.kernel_size)):
        for _ in range(layer.in_channels):  # each is read by the outputs of its own group
            count += layer.out_channels // layer.groups
    return count


@pytest.mark.parametrize("data", [False, True])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(6, 4, 3, stride=2, padding=1),
        nn.Conv1d(6, 4, 2, dilation=2, groups=2),
        nn.Conv2d(6, 4, (3, 2), stride=(1, 2)),
        nn.Conv2d(6, 12, 3, groups=6),
        nn.Conv2d(6, 9, 3, padding="same", groups=3),
        nn.Conv3d(6, 4, 2, groups=2),
        nn.ConvTranspose1d(6, 4, 3, stride=2),
        nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2),
        nn.ConvTranspose2d(6, 6, 3, groups=6),
        nn.ConvTranspose3d(6, 4, 2, stride=2),
    ],
    ids=str,
)
def test_convolutions(layer, data):
    reads = (5, 6, 4)[: layer.weight.ndim - 2]
    image = torch.randn(1, 6, *reads)
    model = Code(lambda self, x: self.layer(x), data, layer=layer)
    wanted = conv_by_hand(layer, reads, layer(image).shape[2:])
    assert measure_size(model, image).macs == wanted


def recurrent_by_hand(gates, layers, directions, projected):
    """Count every step: each gate of each unit reads the inputs and the states before."""
    states, count = projected or UNITS, 0
    for layer, _, _ in product(range(layers), range(directions), range(STEPS)):
        reads = READ if layer == 0 else states * directions
        count += gates * UNITS * (reads + states)
        count += UNITS * projected
    return count


@pytest.mark.parametrize("data", [False, True])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    ("kind", "gates", "projected"),
    [(nn.RNN, 1, 0), (nn.GRU, 3, 0), (nn.LSTM, 4, 0), (nn.LSTM, 4, 3)],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_recurrent_layers(kind, gates, projected, layers, directions, data):
    more = {"proj_size": projected} if projected else {}
    layer = kind(READ, UNITS, layers, bidirectional=directions == 2, batch_first=True, **more)
    model = Code(lambda self, x: self.layer(x)[0], data, layer=layer)
    macs = measure_size(model, torch.randn(1, STEPS, READ)).macs
    assert macs == recurrent_by_hand(gates, layers, directions, projected)


def attend(_, x):
    return functional.scaled_dot_product_attention(x, x, x)


def attend_masked(_, x):
    mask = x.new_zeros(x.shape[-2], x.shape[-2])
    return functional.scaled_dot_product_attention(x, x, x, mask)


ATTENTION = 2 * STEPS * STEPS * READ  # queries with keys, and weights with values
PROJECTIONS = 4 * STEPS * READ * READ


@pytest.mark.parametrize("data", [False, True])
@pytest.mark.parametrize(
    ("model", "shape", "macs"),
    [
        (Code(lambda self, x: self.layer(x), layer=nn.Linear(4, 5)), (4,), 4 * 5),
        (Code(lambda self, x: self.layer(x), layer=nn.Linear(4, 5)), (7, 4), 7 * 4 * 5),
        (
            Code(lambda self, x: self.layer(x), layer=nn.Linear(4, 5, bias=False)),
            (2, 7, 4),
            2 * 7 * 4 * 5,
        ),
        (
            Code(lambda self, x: self.layer(x, x), layer=nn.Bilinear(4, 4, 5)),
            (7, 4),
            7 * 4 * 4 * 5,
        ),
        (Code(lambda self, x: self.layer(x[:, 0]), layer=nn.LSTMCell(4, 5)), (7, 4), 20 * (4 + 5)),
        (
            Code(
                lambda self, x: self.layer(x, x, x)[0],
                layer=nn.MultiheadAttention(4, 2, batch_first=True),
            ),
            (7, 4),
            PROJECTIONS + ATTENTION,
        ),
        (
            Code(
                lambda self, x: self.layer(x, x, x, need_weights=False)[0],
                layer=nn.MultiheadAttention(4, 2, batch_first=True),
            ),
            (7, 4),
            PROJECTIONS + ATTENTION,
        ),
        (
            Code(
                lambda self, x: self.layer(x),
                layer=nn.TransformerEncoderLayer(4, 2, 16, batch_first=True),
            ),
            (7, 4),
            PROJECTIONS + ATTENTION + 2 * 7 * 4 * 16,
        ),
        (Code(attend), (2, 7, 4), 2 * ATTENTION),
        (Code(attend_masked), (2, 7, 4), 2 * ATTENTION),
        (Code(lambda _, x: x @ x.mT), (7, 4), 7 * 7 * 4),
        (Code(lambda _, x: x @ x.mT), (3, 7, 4), 3 * 7 * 7 * 4),
        (Code(lambda _, x: torch.einsum("bij,bkj->bik", x, x)), (7, 4), 7 * 7 * 4),
        (Code(lambda _, x: x[0] @ x[0, 0]), (7, 4), 7 * 4),
        (Code(lambda _, x: x[0, 0] @ x[0, 1]), (7, 4), 4),
        (Code(lambda _, x: torch.addmv(x[0, :, 0], x[0], x[0, 0])), (7, 4), 7 * 4),
        (Code(lambda _, x: torch.addbmm(x.new_zeros(7, 7), x, x.mT)), (7, 4), 7 * 7 * 4),
        (Code(lambda _, x: torch.baddbmm(x.new_zeros(1), x, x.mT)), (7, 4), 7 * 7 * 4),
        (
            Code(lambda self, x: functional.linear(x, self.layer.weight), layer=nn.Linear(4, 5)),
            (7, 4),
            7 * 4 * 5,
        ),
        (
            Code(
                lambda self, x: functional.conv2d(x, self.layer.weight), layer=nn.Conv2d(3, 4, 2)
            ),
            (3, 5, 5),
            16 * 3 * 4 * 4,
        ),
        (Code(lambda _, x: (x * x + x).relu().softmax(-1).mean()), (7, 4), 0),
    ],
)  # fmt: skip
def test_linear_layers_attention_and_functions(model, shape, macs, data):
    model.data = data
    assert measure_size(model, torch.randn(2, *shape)).macs == macs
