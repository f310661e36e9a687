import onnx
import pytest
import torch
import torchvision
from torch import nn

from slimnet.data.inputs import common_inputs, made_up_inputs, parse_shape, usual_shapes
from slimnet.errors import InputError


def flat(size):
    return nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * size**2, 2))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Conv2d(1, 2, 3), (1, 32, 32)),
        (flat(28), (3, 28, 28)),
        (flat(64), (3, 64, 64)),
        (nn.Conv1d(4, 2, 3), (4, 32)),
        (nn.Sequential(nn.Flatten(), nn.Linear(7, 3), nn.Linear(3, 2)), (7,)),
        (torchvision.models.squeezenet1_1(), (3, 224, 224)),
    ],
)
def test_the_first_usual_shape_that_runs_is_taken(model, shape):
    inputs = made_up_inputs(model.eval(), None)
    assert inputs.shape == (2, *shape)


def test_inception_is_asked_at_its_own_size():
    with torch.device("meta"):
        model = torchvision.models.inception_v3(init_weights=False)
    assert list(usual_shapes(model)) == [(3, 299, 299)]


def test_a_given_shape_is_taken_and_the_seed_decides_the_noise():
    model = nn.Conv2d(3, 2, 3)
    first = made_up_inputs(model, [3, 5, 9], seed=1)
    assert first.shape == (2, 3, 5, 9)
    assert torch.equal(first, made_up_inputs(model, (3, 5, 9), seed=1))
    assert not torch.equal(first, made_up_inputs(model, (3, 5, 9), seed=2))


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (flat(30), "inputs of 3,32,32 or 3,28,28 or 3,64,64 or 3,224,224; give it without"),
        (nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 2)), "its first layer does not show it"),
        (nn.ConvTranspose2d(3, 4, 2), "its first layer does not show it"),
    ],
)
def test_what_cannot_be_guessed_is_asked_for(model, told):
    with pytest.raises(InputError, match=told) as caught:
        made_up_inputs(model, None)
    assert "--input-shape" in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((), "whole numbers of 1 or more"),
        ((3, 0, 8), r"of 1 or more such as 3,224,224; got \(3, 0, 8\)"),
        ((3, 8.0, 8), "whole numbers"),
        ((3, 10**5, 10**5), "67,108,864 elements at most"),
        ((1, 8, 8), r"fails on inputs of the shape \(2, 1, 8, 8\): RuntimeError"),
    ],
)
def test_a_bad_shape_is_refused(shape, told):
    with pytest.raises(InputError, match=told):
        made_up_inputs(nn.Conv2d(3, 2, 3), shape)


def test_a_shape_is_written_with_commas():
    assert parse_shape("3, 224,224") == (3, 224, 224)
    with pytest.raises(InputError, match="such as 3,224,224; got '3x224'"):
        parse_shape("3x224")


class Boxes(nn.Conv2d):
    """Finds another number of boxes in each image, like networks for detection."""

    def forward(self, x):
        features = super().forward(x).mean((1, 2, 3))
        return [{"boxes": torch.zeros(5 + number, 4)} for number in range(len(features))]


def test_a_network_for_detection_is_refused_with_what_to_do():
    with pytest.raises(InputError, match=r"\(5, 4\), \(6, 4\) for 2 images.*model\.backbone"):
        made_up_inputs(Boxes(3, 2, 3).eval(), None)


class Two(nn.Module):
    """Takes an image and the number of a word."""

    def __init__(self):
        super().__init__()
        self.conv, self.words, self.head = nn.Conv2d(3, 4, 3), nn.Embedding(2, 4), nn.Linear(4, 2)

    def forward(self, image, word):
        return self.head(self.conv(image).mean((2, 3)) + self.words(word)[:, 0])


def test_several_shapes_make_several_inputs_of_the_types_that_run():
    assert parse_shape(["3,8,8", "1"]) == ((3, 8, 8), (1,))
    assert parse_shape(["3,8,8"]) == (3, 8, 8)
    assert parse_shape([]) is None
    image, word = made_up_inputs(Two(), ((3, 8, 8), (1,)))
    assert (image.shape, image.dtype) == ((2, 3, 8, 8), torch.float32)
    assert (word.shape, word.dtype) == ((2, 1), torch.int64)
    assert made_up_inputs(nn.Embedding(2, 3), (5,)).dtype == torch.int64
    with pytest.raises(InputError, match=r"shape \(2, 3, 8, 8\): TypeError.*one for each input"):
        made_up_inputs(Two(), (3, 8, 8))


def test_the_shapes_of_an_onnx_files_inputs_may_be_given_one_by_one(tmp_path):
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", *axes])
        for name, axes in (("a", [3, "n"]), ("b", [None]))
    ]
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, ["batch", 3, "n"])
    node = onnx.helper.make_node("Identity", ["a"], ["out"])
    graph = onnx.helper.make_graph([node], "g", values, [out])
    path = tmp_path / "net.onnx"
    onnx.save(onnx.helper.make_model(graph), path)
    found = common_inputs(path, path, ((3, 7), (5,)))
    assert [one.shape for one in found] == [(None, 3, 7), (None, 5)]
    with pytest.raises(InputError, match="takes 2 inputs; got 3 input shapes"):
        common_inputs(path, path, ((3, 7), (5,), (1,)))
