"""Files of arrays: every layout and every way to be wrong."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from slimnet.data.load import load_splits
from slimnet.errors import InputError
from slimnet.options import Options


def arrays(images: int = 60, classes: int = 3, start: int = 0):
    """Make 2 x 2 images whose every pixel is their own number, so that each can be found again."""
    pixels = np.arange(start, start + images, dtype=np.float32)
    return np.broadcast_to(pixels[:, None, None, None], (images, 2, 2, 3)).copy(), (
        np.arange(images) % classes
    )


def save(path, images, labels):
    np.savez(path, images=images, labels=labels)
    return path


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pt"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW"])
def test_array_files_and_layouts(tmp_path, suffix, layout):
    images = torch.randint(0, 256, (60, 4, 5, 3), dtype=torch.uint8)
    labels = torch.arange(60) % 3
    expected = images.permute(0, 3, 1, 2)
    stored = {"NHWC": images, "NCHW": expected.contiguous(), "NHW": images[..., 0].contiguous()}
    path = tmp_path / f"d.{suffix}"
    content = {"images": stored[layout], "labels": labels}
    if suffix == "npz":
        np.savez(path, **{key: value.numpy() for key, value in content.items()})
    elif suffix == "pt":
        torch.save(content, path)
    else:
        save_file(content, path)
    splits = load_splits(path, Options(scale=1), confirm=True)
    channels = 1 if layout == "NHW" else 3
    got = [
        i for s in (splits.calibration, splits.selection, splits.confirmation) for i, _ in s.batches
    ]
    got = sorted(torch.cat(got).flatten(1).tolist())
    assert got == sorted(expected[:, :channels].flatten(1).float().tolist())


BAD = {
    "labels of floats": (arrays()[0], np.zeros(60), "whole numbers"),
    "labels below 0": (arrays()[0], np.full(60, -1), "0 or more; got -1"),
    "labels of 2 axes": (arrays()[0], np.zeros((60, 2), int), r"int64 of the shape \(60, 2\)"),
    "soft labels": (arrays()[0], np.full((60, 2), 0.5), r"float64 of the shape \(60, 2\).*--task"),
    "too few labels": (arrays()[0], np.zeros(59, int), "59 for 60"),
    "NaN": (np.full((60, 2, 2, 3), np.nan), np.zeros(60, int), "NaN"),
    "2 axes": (np.zeros((60, 12)), np.zeros(60, int), r"\(60, 12\); name the array inputs"),
    "no channel axis": (np.zeros((60, 4, 4, 4)), np.zeros(60, int), "do not show which axis"),
    "integers": (np.zeros((60, 4, 4, 3), int), np.zeros(60, int), "uint8 or float"),
    "objects": (np.array([{}] * 60), np.zeros(60, int), "plain arrays"),
    "none": (np.zeros((0, 4, 4, 3)), np.zeros(0, int), "holds no images"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_arrays(tmp_path, kind):
    images, labels, message = BAD[kind]
    with pytest.raises(InputError, match=message):
        load_splits(save(tmp_path / "d.npz", images, labels), Options(), confirm=True)


def test_unusable_files(tmp_path):
    (tmp_path / "empty.npz").touch()
    (tmp_path / "text.npz").write_text("text")
    (tmp_path / "d.csv").write_text("1,2")
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    cases = {
        "missing.npz": "no file",
        "empty.npz": "is empty",
        "text.npz": "plain arrays",
        "d.csv": "image folder",
        "x.npz": "it holds x",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message):
            load_splits(tmp_path / name, Options(), confirm=True)


class Marker:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("suffix", ["npz", "pt"])
def test_data_files_never_run_code(tmp_path, suffix):
    evil = Marker(str(tmp_path / "marker"))
    path = tmp_path / f"d.{suffix}"
    if suffix == "npz":
        np.savez(path, images=np.array([evil], dtype=object), labels=np.zeros(1, int))
    else:
        torch.save({"images": evil}, path)
    (tmp_path / "marker").unlink(missing_ok=True)
    with pytest.raises(InputError) as caught:
        load_splits(path, Options(trust_pickle=True), confirm=True)
    assert not (tmp_path / "marker").exists()
    assert "weights_only" not in str(caught.value)
    pickle.loads(pickle.dumps(evil)).close()
    assert (tmp_path / "marker").exists()  # the marker of this test does work
