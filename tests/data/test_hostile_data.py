"""Data files made to do harm, and images of every kind that a user may have."""

import io
import resource
import time
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from slimnet.data.load import load_splits
from slimnet.errors import InputError
from slimnet.options import Options

MAX_SECONDS, MAX_MEGABYTES = 1.0, 100


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def refusal(path):
    """The one line that a file is refused with, which takes neither time nor memory."""
    memory, seconds = peak_megabytes(), time.process_time()
    with pytest.raises(InputError) as caught:
        load_splits(path, Options(), confirm=True)
    assert time.process_time() - seconds < MAX_SECONDS
    assert peak_megabytes() - memory < MAX_MEGABYTES
    told = str(caught.value)
    assert str(path) in told
    assert told.isprintable()
    assert "weights_only" not in told
    assert "allow_pickle" not in told
    return told


def array(shape, content, kind="|u1"):
    """The .npy of an array that says it has this shape."""
    file = io.BytesIO()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


def write_npz(path, **entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)
    return path


LABELS = array((60,), bytes(60))
IMAGES = array((60, 2, 2, 3), bytes(720))


@pytest.mark.parametrize("name", ["images", "labels"])
def test_bomb_in_an_npz(tmp_path, name):
    bomb = array((10**6, 10, 10, 2), bytes(2 * 10**8))
    path = write_npz(tmp_path / "d.npz", **{"images": IMAGES, "labels": LABELS, name: bomb})
    assert f"{name} would grow from" in refusal(path)


def test_bomb_that_nobody_reads_stays_closed(tmp_path):
    bomb = array((2 * 10**8,), bytes(2 * 10**8))
    path = write_npz(tmp_path / "d.npz", images=IMAGES, labels=LABELS, other=bomb)
    memory = peak_megabytes()
    load_splits(path, Options(), confirm=True)
    assert peak_megabytes() - memory < MAX_MEGABYTES


def test_bomb_in_a_torch_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("d/data.pkl", bytes(2 * 10**8))
        archive.writestr("d/version", b"3\n")
    assert "claims to hold 200,000," in refusal(tmp_path / "d.pt")


def test_compressed_images_are_fine(tmp_path):
    np.savez_compressed(
        tmp_path / "d.npz", images=np.zeros((60, 8, 8, 3), np.uint8), labels=np.zeros(60, int)
    )
    load_splits(tmp_path / "d.npz", Options(), confirm=True)


@pytest.mark.parametrize("images", [61, 10**7, 10**13])
def test_shape_larger_than_the_array(tmp_path, images):
    path = write_npz(tmp_path / "d.npz", images=array((images, 2, 2, 3), bytes(720)), labels=LABELS)
    assert "damaged" in refusal(path)


def test_few_values_expanded_to_many_images(tmp_path):
    for images in (10**7, 10**12):
        content = {
            "images": torch.zeros(1, dtype=torch.uint8).expand(images, 3, 8, 8),
            "labels": torch.zeros(1, dtype=torch.int64).expand(images),
        }
        torch.save(content, tmp_path / "d.pt")
        assert "bytes of values but hold 9" in refusal(tmp_path / "d.pt")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.full(60, 2**63 + 5, np.uint64), "labels are 0 or more"),
        (np.full(60, np.nan), "whole numbers"),
        (np.array(["cat"] * 60), "labels must be arrays of numbers; got text"),
        (np.array([{}] * 60, dtype=object), "plain arrays"),
    ],
)
def test_labels_that_are_none(tmp_path, labels, told):
    np.savez(tmp_path / "d.npz", images=np.zeros((60, 2, 2, 3), np.uint8), labels=labels)
    assert told in refusal(tmp_path / "d.npz")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_pixels_that_are_no_numbers(tmp_path, value):
    images = np.zeros((60, 2, 2, 3))
    images[7, 1, 0, 2] = value
    np.savez(tmp_path / "d.npz", images=images, labels=np.zeros(60, int))
    with np.errstate(over="ignore"):
        assert "NaN or infinite" in refusal(tmp_path / "d.npz")


def folder_with(tmp_path, image, name, **options):
    """An image folder of plain images and one of another kind; gives what that one becomes."""
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for index in range(15):
            Image.new("RGB", (2, 2), (index, index, index)).save(tmp_path / label / f"{index}.png")
    path = tmp_path / "cat" / name
    image.save(path, **options)
    splits = load_splits(tmp_path, Options(scale=1), confirm=True)
    three = (splits.calibration, splits.selection, splits.confirmation)
    found = torch.cat([images for split in three for images, _ in split.batches])
    assert found.shape == (31, 3, 2, 2)
    return next(image for image in found if float(image.max()) > 15)


PIXELS = np.array([[0, 255], [128, 64]], dtype=np.uint8)
GREY = Image.fromarray(PIXELS)
BLACK_AND_WHITE = Image.fromarray(255 * (PIXELS > 99).astype(np.uint8))
COLOUR = Image.fromarray(np.stack([PIXELS, 255 - PIXELS, PIXELS // 2], 2))


def expected(colour):
    return torch.from_numpy(np.array(colour)).permute(2, 0, 1).float()


@pytest.mark.parametrize(
    ("name", "image", "same"),
    [
        ("x.png", GREY, GREY),
        ("x.tif", GREY, GREY),
        ("x.png", Image.fromarray(PIXELS.astype(np.uint16) * 257), GREY),
        ("x.tif", Image.fromarray(PIXELS.astype(np.uint16) * 257), GREY),
        ("x.png", GREY.point(lambda shade: 255 * (shade > 99), "1"), BLACK_AND_WHITE),
        ("x.png", GREY.convert("LA"), GREY),
        ("x.png", COLOUR.convert("RGBA"), COLOUR),
        ("x.png", COLOUR.convert("P", palette=Image.Palette.ADAPTIVE, colors=4), COLOUR),
        ("x.gif", COLOUR.convert("P", palette=Image.Palette.ADAPTIVE, colors=4), COLOUR),
        ("x.tif", COLOUR.convert("CMYK"), COLOUR),
        ("x.bmp", COLOUR, COLOUR),
        ("x.webp", COLOUR, COLOUR),
    ],
)  # fmt: skip
def test_every_kind_of_image_becomes_the_colours_that_it_shows(tmp_path, name, image, same):
    options = {"lossless": True} if name.endswith("webp") else {}
    got = folder_with(tmp_path, image, name, **options)
    assert torch.equal(got, expected(same.convert("RGB")))


@pytest.mark.parametrize("name", ["x.gif", "x.png", "x.webp"])
def test_of_an_animation_it_is_the_first_frame(tmp_path, name):
    later = [Image.new("RGB", (2, 2), (0, shade, 0)) for shade in (50, 90)]
    first = Image.new("RGB", (2, 2), (200, 0, 0))
    options = {"lossless": True} if name.endswith("webp") else {}
    got = folder_with(tmp_path, first, name, save_all=True, append_images=later, **options)
    assert got[:, 0, 0].tolist() == [200, 0, 0]


def bad_image(kind, path):
    if kind == "text":
        path.write_text("no image")
    elif kind == "empty":
        path.touch()
    elif kind == "half a JPEG":
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, "JPEG")
        path.write_bytes(path.read_bytes()[:1500])
    elif kind == "floats":
        Image.fromarray(np.ones((2, 2), np.float32)).save(path, "TIFF")
    elif kind == "more pixels than there are bytes":
        Image.new("RGB", (2, 2)).save(path, "BMP")
        content = bytearray(path.read_bytes())
        content[18:26] = (60_000).to_bytes(4, "little") * 2
        path.write_bytes(content)


def read_all(folder):
    splits = load_splits(folder, Options(), confirm=True)
    return [
        list(split.batches) for split in (splits.calibration, splits.selection, splits.confirmation)
    ]


KINDS = ["text", "empty", "half a JPEG", "floats", "more pixels than there are bytes"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_bad_image_is_named(tmp_path, kind):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for index in range(15):
            Image.new("RGB", (2, 2)).save(tmp_path / label / f"{index}.png")
    bad_image(kind, tmp_path / "cat" / "7.tif")
    memory = peak_megabytes()
    with pytest.raises(InputError, match=r"image .*cat/7\.tif cannot be") as caught:
        read_all(tmp_path)
    assert str(caught.value).isprintable()
    assert peak_megabytes() - memory < MAX_MEGABYTES
