"""A user's own loss and score, and classification said the same way."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from slimnet.errors import InputError
from slimnet.options import Options
from slimnet.records.data import Split, Splits
from slimnet.tasks.classification import CLASSIFICATION, choose_task, mean_loss
from slimnet.tasks.task import Task


class Masked(nn.Module):
    """Two inputs, one of them by keyword, and a dict of outputs."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, image, mask, extra=None):
        out = self.conv(image) * mask
        return {"out": out, "name": "masked", "pair": (out.sum(1), out.argmax(1))}


def loss(model, batch):
    out = model(mask=batch["mask"], image=batch["image"])["out"]
    return (out - batch["wanted"]).square().mean()


def score(model, batches):
    return 100 - sum(float(loss(model, batch)) for batch in batches)


def batch_of(images):
    shapes = {"image": (3, 4, 4), "mask": (1, 4, 4), "wanted": (2, 4, 4)}
    return {name: torch.randn(images, *shape) for name, shape in shapes.items()}


def splits_of(batch):
    parts = [Split(name, 4, [batch]) for name in ("calibration", "selection", "test")]
    return Splits(*parts, description="", classes=None, preprocessing={})


@pytest.fixture
def masked():
    torch.manual_seed(0)
    return Masked().eval()


def test_example_inputs_are_those_of_the_call_in_the_order_of_the_forward(masked):
    batch, before = batch_of(3), copy.deepcopy(masked.state_dict())
    example = Task(loss, score).check(masked, splits_of(batch))
    assert isinstance(example, tuple)
    assert torch.equal(example[0], batch["image"][:2])
    assert torch.equal(example[1], batch["mask"][:2])
    assert all(torch.equal(value, before[name]) for name, value in masked.state_dict().items())
    assert not masked._forward_pre_hooks
    assert all(parameter.grad is None for parameter in masked.parameters())


def test_outputs_are_all_floating_point_tensors_that_the_model_gave(masked):
    batch = batch_of(3)
    expected = masked(batch["image"], batch["mask"])
    found = Task(loss, score).outputs(masked, batch)
    assert len(found) == 2
    assert torch.equal(found[0], expected["out"])
    assert torch.equal(found[1], expected["pair"][0])
    assert not masked._forward_hooks


def test_the_mean_loss_weighs_batches_by_their_images(masked):
    batches = [batch_of(3), batch_of(1)]
    with torch.no_grad():
        expected = (3 * loss(masked, batches[0]) + loss(masked, batches[1])) / 4
    assert mean_loss(masked, batches, Task(loss, score)) == pytest.approx(float(expected))


def test_classification_said_as_functions_is_the_same(trained):
    model, splits = trained
    own = Task(CLASSIFICATION.loss, CLASSIFICATION.score)
    batches = splits.selection.batches
    assert mean_loss(model, batches, own) == pytest.approx(mean_loss(model, batches))
    measured = own.measure(model, splits.selection, 0.95)
    assert measured.percent == CLASSIFICATION.measure(model, splits.selection, 0.95).percent
    assert len(measured.parts) == len(batches)
    assert own.measure(model, splits.selection, 0.5).parts == ()
    assert (own.quantity, CLASSIFICATION.quantity) == ("top 1 accuracy", "accuracy")


def test_a_score_without_a_name_is_called_score():
    assert Task(loss, lambda model, batches: 50.0).quantity == "score"


def never(model, batch):
    return nn.Linear(1, 1)(torch.ones(1, 1)).sum()


def failing(model, batch):
    raise KeyError("image\nand more")


def detection(model, batch):
    return model(list(batch["image"]), batch["mask"])["out"].mean()


def uneven(model, batch):
    return model(batch["image"], batch["mask"][0])["out"].mean()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (failing, "fails on the first batch: KeyError: 'image"),
        (never, "never calls the model"),
        (lambda m, b: loss(m, b).detach(), "must have a gradient"),
        (
            lambda m, b: loss(m, b).item(),
            "one number, the mean over the batch, .*got a float",
        ),
        (
            lambda m, b: m(b["image"], b["mask"])["out"],
            r"one number.*of shape \(3, 2, 4, 4\)",
        ),
        (lambda m, b: loss(m, b) * 1j, "one number.*type torch.complex64"),
        (lambda m, b: loss(m, b) * torch.nan, "is nan on the first batch"),
        (uneven, r"one entry an image.*got \(3, 3, 4, 4\), \(1, 4, 4\)"),
        (detection, "positional arguments; got list, Tensor: wrap it"),
    ],
)
def test_a_wrong_loss_is_told_in_one_line(masked, wrong, message):
    with pytest.raises(InputError, match=message) as caught:
        Task(wrong, score).check(masked, splits_of(batch_of(3)))
    assert "\n" not in str(caught.value)


class Boxes(nn.Module):
    """Called with a list of images, as networks for detection are."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, images):
        return [{"boxes": self.conv(image[None]).mean((2, 3))} for image in images]


def test_detection_is_refused_by_name():
    def of_boxes(model, batch):
        return torch.cat([found["boxes"] for found in model(list(batch["image"]))]).mean()

    with pytest.raises(InputError, match=r"got list: wrap it; of a detector"):
        Task(of_boxes, score).check(Boxes().eval(), splits_of(batch_of(3)))


def test_a_batch_of_one_image_is_refused(masked):
    with pytest.raises(InputError, match="2 images or more"):
        Task(loss, score).check(masked, splits_of(batch_of(1)))


def test_a_task_comes_from_a_file_and_is_run_once(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from pathlib import Path\n"
        "seen = Path(__file__).with_name('seen')\n"
        "seen.write_text((seen.read_text() if seen.exists() else '') + '.')\n"
        "def loss(model, batch): return model(batch).sum()\n"
        "def score(model, batches): return 50.0\n"
    )
    task = choose_task(None, Options(task=str(file)))
    assert task.score(None, []) == 50
    assert (tmp_path / "seen").read_text() == "."
    assert not task.by_image


def test_without_a_task_it_is_classification():
    assert choose_task(None, Options()) is CLASSIFICATION
    own = Task(loss, score)
    assert choose_task(own, Options(task="other.py")) is own


@pytest.mark.parametrize(
    ("given", "name", "message"),
    [
        (3, None, "got a int"),
        (None, "segmentation", "a Python file"),
        (None, "absent.py", "there is no Python file"),
        (None, "task.py:loss", "without a function's name"),
        (None, "half.py", r"must define the functions loss.model, batch. and .*; score is not"),
    ],
)
def test_what_is_no_task_is_refused(tmp_path, monkeypatch, given, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.py").write_text("def loss(model, batch): return 0\n")
    with pytest.raises(InputError, match=message):
        choose_task(given, Options(task=name))


def test_functional_loss_over_shared_batches_keeps_gradients(masked):
    """Batches read under inference_mode first may be used for gradients afterwards."""
    batch = batch_of(2)
    mean_loss(masked, [batch], Task(loss, score))
    value = functional.relu(Task(loss, score).losses(masked, batch).sum())
    assert torch.autograd.grad(value, masked.conv.weight)[0].abs().sum() > 0


def training(model, batch):
    model.train()
    return loss(model, batch)


def drifting(model, batch):
    with torch.no_grad():
        next(iter(model.parameters())).mul_(0.5)
    return loss(model, batch)


@pytest.mark.parametrize(
    ("changing", "message"), [(training, "train and eval mode"), (drifting, "it changes")]
)
def test_a_task_that_changes_the_network_is_refused(masked, changing, message):
    splits = splits_of(batch_of(4))
    masked.eval()
    with pytest.raises(InputError, match=f"loss must not change the network.*{message}"):
        Task(changing, score).check(masked, splits)
    masked.eval()
    with pytest.raises(InputError, match=f"score must not change the network.*{message}"):
        Task(loss, lambda model, batches: float(changing(model, batches[0]))).check(masked, splits)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda model, batches: 1 / 0, "score fails: .*division by zero"),
        (lambda model, batches: None, "one number.*NoneType"),
        (lambda model, batches: {"iou": 50}, "one number.*dict"),
        (lambda model, batches: torch.ones(2), r"one number.*shape \(2,\)"),
        (lambda model, batches: torch.ones(2).numpy(), "one number.*ndarray"),
        (lambda model, batches: 50.0, "score never calls the model"),
        (lambda model, batches: score(model, batches) * torch.rand(1), "another each time"),
    ],
)
def test_a_wrong_score_is_told_in_one_line(masked, wrong, message):
    with pytest.raises(InputError, match=message):
        Task(loss, wrong).check(masked, splits_of(batch_of(4)))


def test_empty_splits_are_refused_in_one_line(masked):
    splits = replace(splits_of(batch_of(3)), selection=Split("selection", 0, []))
    with pytest.raises(InputError, match="the selection split is empty; give images for it"):
        Task(loss, score).check(masked, splits)
