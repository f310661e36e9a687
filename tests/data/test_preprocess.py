"""Pixels become inputs in one stated order."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import ResNet18_Weights

from slimnet.data.load import load_splits
from slimnet.data.preprocess import build_preprocessor
from slimnet.errors import InputError
from slimnet.options import Options

PIXELS = torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1).expand(3, 4, 4)


def result(options: Options, image=PIXELS) -> torch.Tensor:
    return build_preprocessor(options, image)(image)


def test_uint8_is_scaled_to_0_to_1_and_float_is_not():
    assert torch.allclose(result(Options())[:, 0, 0] * 255, torch.tensor([10.0, 20, 30]))
    assert torch.equal(result(Options(), PIXELS.float()), PIXELS.float())


def test_order_is_channels_scale_mean_std():
    options = Options(channels="bgr", scale=0.5, mean=(1, 2, 3), std=(2, 4, 8))
    expected = torch.tensor([(15 - 1) / 2, (10 - 2) / 4, (5 - 3) / 8])
    assert torch.equal(result(options)[:, 0, 0], expected)
    assert result(options).dtype == torch.float32


def test_size_cuts_the_middle_after_resizing_the_short_side():
    image = torch.arange(12.0).expand(1, 6, 12)
    cut = result(Options(size=6), image)
    assert torch.equal(cut[0, 0], torch.arange(3.0, 9.0))
    assert result(Options(size=3), image).shape == (1, 3, 3)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_imagenet_is_what_torchvision_does(kind):
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, 300, 270), dtype=torch.uint8)
    expected = ResNet18_Weights.IMAGENET1K_V1.transforms()(image)
    given = image if kind == torch.uint8 else image / 255
    got = result(Options(preprocess="imagenet"), given)
    assert got.shape == (3, 224, 224)
    assert (got - expected).abs().max() < (1e-5 if kind == torch.uint8 else 0.02)


def test_imagenet_with_a_size():
    options = Options(preprocess="imagenet", size=112)
    assert result(options).shape == (3, 112, 112)
    described = build_preprocessor(options, PIXELS).describe()
    assert described["resize_short_side_pixels"] == 128
    assert described["centre_crop_pixels"] == 112
    assert described["mean"] == [0.485, 0.456, 0.406]
    assert described["scale"] == 1 / 255


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(mean=(0.5,)), "mean has one value a channel, 3 here; got 1"),
        (Options(std=(1, 1)), "std has one value a channel, 3 here; got 2"),
        (Options(std=(1, 0, 1)), "std is above 0"),
        (Options(preprocess="mine.py:half", size=3, channels="bgr"), "leave out size, channels"),
        (Options(preprocess="missing.py:half"), "no Python file"),
        (Options(preprocess="torch"), "path/file.py:name"),
    ],
)
def test_settings_that_do_not_fit(options, message):
    with pytest.raises(InputError, match=message):
        result(options)


def test_grey_images():
    grey = PIXELS[:1]
    assert result(Options(mean=(0.5,)), grey).shape == (1, 4, 4)
    for options in (Options(channels="bgr"), Options(preprocess="imagenet")):
        with pytest.raises(InputError, match=r"channels? ?.*1"):
            result(options, grey)


def test_callable_does_everything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "def half(image): return image.float() / 2\n"
        "def fails(image): raise ValueError('no')\n"
        "def integers(image): return image\n"
        "def none(image): return None\n"
    )
    assert torch.equal(result(Options(preprocess="mine.py:half")), PIXELS / 2)
    described = build_preprocessor(Options(preprocess="mine.py:half"), PIXELS).describe()
    assert described == {"callable": "mine.py:half"}
    for name, message in (("fails", "ValueError: no"), ("integers", "uint8"), ("none", "NoneType")):
        with pytest.raises(InputError, match=message) as caught:
            result(Options(preprocess=f"mine.py:{name}"))
        assert (caught.value.__cause__ is not None) == (name == "fails")


def test_colours_become_grey_as_pil_does_it():
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, 20, 20), dtype=torch.uint8)
    expected = np.array(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
    got = result(Options(channels="grey", scale=1), image)
    assert got.shape == (1, 20, 20)
    assert (got[0] - torch.from_numpy(expected).float()).abs().max() <= 1
    assert result(Options(channels="grey", mean=(0.5,)), PIXELS[:1]).shape == (1, 4, 4)
    assert torch.allclose(
        result(Options(channels="grey"), image / 255), (got / 255).float(), atol=1 / 500
    )


@pytest.mark.parametrize(
    ("pixels", "changes", "told"),
    [
        (torch.rand(40, 3, 4, 4) * 255, {}, True),
        (torch.rand(40, 3, 4, 4) * 255, {"scale": 1.0}, False),
        (torch.rand(40, 3, 4, 4) * 6 - 3, {}, False),
        ((torch.rand(40, 3, 4, 4) * 255).to(torch.uint8), {}, False),
    ],
)
def test_decimal_pixels_that_look_unscaled_are_told(tmp_path, pixels, changes, told):
    np.savez(tmp_path / "data.npz", images=pixels.numpy(), labels=[0, 1] * 20)
    splits = load_splits(tmp_path / "data.npz", Options(**changes))
    assert ("taken as they are" in splits.description) == told
