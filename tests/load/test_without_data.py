"""A run without data gives the same shapes and errors, or the network runs with data."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimnet.load.without_data import on_shapes


class Does(nn.Module):
    """A network of one call."""

    def __init__(self, call, *weights: tuple[int, ...]) -> None:
        super().__init__()
        self.call = call
        self.weights = nn.ParameterList(torch.rand(shape) for shape in weights)

    def forward(self, x):
        return self.call(x, *self.weights)


def run(model, x):
    out = model(x)
    if out.requires_grad:
        out.sum().backward()
    return out


IMAGES = (2, 6, 8, 8)
REFUSED = {
    "convolution, inputs": (lambda x, w: F.conv2d(x, w), IMAGES, (4, 5, 1, 1)),
    "convolution, kernel": (lambda x, w: F.conv2d(x, w), IMAGES, (4, 6, 9, 9)),
    "convolution, bias": (lambda x, w, b: F.conv2d(x, w, b), IMAGES, (4, 6, 1, 1), (3,)),
    "convolution, groups": (lambda x, w: F.conv2d(x, w, groups=3), IMAGES, (4, 2, 1, 1)),
    "convolution in one dimension": (lambda x, w: F.conv1d(x, w), (2, 6, 8), (4, 5, 1)),
    "transposed": (lambda x, w: F.conv_transpose2d(x, w), IMAGES, (5, 4, 1, 1)),
    "linear": (F.linear, (2, 6), (4, 5)),
    "linear, three dimensions": (F.linear, (2, 3, 6), (4, 5)),
    "linear, bias": (F.linear, (2, 6), (4, 6), (3,)),
    "matrices": (torch.matmul, (2, 3, 6), (2, 5, 4)),
    "batch norm": (lambda x, w: F.batch_norm(x, None, None, w, w, True), IMAGES, (5,)),
    "batch norm, statistics": (lambda x, w: F.batch_norm(x, w.data, w.data), IMAGES, (5,)),
    "batch norm, updates": (
        lambda x, w: F.batch_norm(x, w.data, w.data, training=True), IMAGES, (5,)),
    "group norm": (lambda x, w: F.group_norm(x, 4, w, w), IMAGES, (6,)),
    "group norm, weight": (lambda x, w: F.group_norm(x, 3, w, w), IMAGES, (5,)),
    "layer norm": (lambda x, w: F.layer_norm(x, (5,), w, w), (2, 6), (5,)),
    "layer norm, weight": (lambda x, w: F.layer_norm(x, (6,), w, w), (2, 6), (5,)),
    "prelu": (F.prelu, IMAGES, (5,)),
    "sum": (torch.add, IMAGES, (2, 5, 8, 8)),
    "sum in place": (lambda x, w: x.clone().add_(w), IMAGES, (2, 5, 8, 8)),
    "sum in place of another size": (lambda x, w: x[:1].clone().add_(w), IMAGES, IMAGES),
    "moving average": (lambda x, w: w.data.lerp_(x.mean((0, 2, 3)), 0.1), IMAGES, (5,)),
    "copied": (lambda x, w: w.data.copy_(x[0]), IMAGES, (5,)),
    "assigned": (lambda x, w: x.clone().__setitem__((slice(None), slice(0, 4)), w), (2, 6), (2, 5)),
    "choice": (lambda x, w: torch.where(x > 0, x, w), IMAGES, (2, 5, 8, 8)),
    "mask": (lambda x, w: x.masked_fill(w > 0, 0), IMAGES, (2, 5, 8, 8)),
    "joined": (lambda x, w: torch.cat([x, w], 1), IMAGES, (2, 4, 8, 7)),
    "view": (lambda x: x.view(-1, 7), (2, 6)),
    "view of what is apart": (lambda x: x.transpose(1, 2).view(2, -1), IMAGES),
    "reshaped": (lambda x: x.reshape(2, 5, -1), (2, 6)),
    "unflattened": (lambda x: x.unflatten(1, (4, -1)), (2, 6)),
    "split": (lambda x: torch.split(x, [3, 4], 1)[0], IMAGES),
    "one place": (lambda x: x[:, 6], IMAGES),
    "places": (lambda x: x[:, [1, 6]], IMAGES),
    "places by a tensor": (lambda x: x[:, torch.tensor([1, 6])], IMAGES),
    "selected": (lambda x: x.index_select(1, torch.tensor([6])), IMAGES),
    "gathered": (lambda x: x.gather(1, torch.tensor([[6]])), (2, 6)),
    "embedding": (lambda x, w: F.embedding(torch.tensor([6]), w) + x[:, :2], (2, 6), (6, 2)),
    "classes": (lambda x: F.cross_entropy(x, torch.tensor([0, 6])), (2, 6)),
    "narrowed": (lambda x: x.narrow(1, 3, 4), IMAGES),
    "strides": (lambda x: x.as_strided((5, 5), (5, 1)), (2, 6)),
    "expanded": (lambda x: x.expand(2, 5), (2, 6)),
    "permuted": (lambda x: x.permute(0, 1, 3), IMAGES),
    "axis": (lambda x: x.mean(4), IMAGES),
    "axis of a softmax": (lambda x: x.softmax(4), IMAGES),
    "pooled to nothing": (lambda x: F.max_pool2d(x, 9), IMAGES),
    "mean of nothing": (lambda x: F.avg_pool2d(x, 9), IMAGES),
    "cropped to nothing": (lambda x: F.pad(x, (-5, -5)), IMAGES),
    "reflected": (lambda x: F.pad(x, (9, 9), mode="reflect"), IMAGES),
    "shuffled pixels": (lambda x: F.pixel_shuffle(x, 4), IMAGES),
    "loss": (F.mse_loss, (2, 6), (3, 5)),
    "a value": (lambda x: x if float(x.sum()) is None else x[7], (2, 6)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_with_data_is_refused(name):
    call, shape, *weights = REFUSED[name]
    model = Does(call, *weights)
    with pytest.raises((RuntimeError, IndexError, ValueError)) as with_data:
        run(copy.deepcopy(model), torch.rand(shape))
    with pytest.raises(type(with_data.value)) as without:
        on_shapes(run, model, torch.rand(shape))
    assert str(without.value) == str(with_data.value)


class Catching(nn.Module):
    """Its own code catches what stops a run without data."""

    def forward(self, x):
        try:
            return x[:, torch.tensor([1])]
        except Exception:
            return x


class WithTensor(nn.Module):
    """A tensor that is no buffer: moving the network leaves it where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(6)

    def forward(self, x):
        return x * self.scale


def layers() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.MaxPool2d(2), nn.Dropout(),
        nn.Flatten(), nn.LayerNorm(36), nn.Linear(36, 5), nn.GELU(), nn.Softmax(1),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "without"),
    [
        (layers(), True),
        (layers().eval(), True),
        (nn.TransformerEncoderLayer(8, 2, 16), True),
        (Does(lambda x: x[:, torch.tensor([1])]), False),
        (Does(lambda x: x if x.sum() > 0 else -x), False),
        (Catching(), False),
        (WithTensor(), False),
    ],
)
def test_data_is_used_where_it_must_be(model, without):
    x = torch.rand(IMAGES)[:, :, :, 0] if isinstance(model, nn.TransformerEncoderLayer) else None
    x = torch.rand(IMAGES) if x is None and isinstance(model, nn.Sequential) else x
    out = on_shapes(run, model, torch.rand(2, 6) if x is None else x)
    assert out.is_meta is without


def test_nothing_is_changed_and_shapes_are_right():
    model, x = layers(), torch.rand(IMAGES)
    before = copy.deepcopy(model.state_dict())
    learning = [p.requires_grad for p in model.parameters()]
    out = on_shapes(run, model, x, lambda m: m.append(nn.Linear(5, 3)))
    assert out.shape == (2, 3)
    assert len(model) == 10
    assert [p.requires_grad for p in model.parameters()] == learning
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
        assert not value.is_meta


def test_what_is_shared_stays_shared():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = model[0].weight

    def count(model: nn.Module, _: Tensor) -> tuple[int, bool]:
        return len(list(model.parameters())), next(model.parameters()).is_meta

    assert on_shapes(count, model, torch.rand(2, 6)) == (3, True)
