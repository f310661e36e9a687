"""Model files that cannot be used are refused in one line."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from slimnet.errors import InputError
from slimnet.load.model import load_model
from slimnet.options import Options


def tiny() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    )


def broken(kind: str, path) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not a model, " * 20)
    elif kind == "truncated":
        torch.save(tiny(), path)
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "truncated safetensors":
        save_file({"a": torch.rand(50)}, path)
        path.write_bytes(path.read_bytes()[:-50])
    elif kind == "scripted":
        torch.jit.script(nn.Sequential(nn.Linear(2, 2))).save(str(path))
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "no state":
        torch.save({"epoch": 3}, path)
    elif kind == "empty dict":
        torch.save({}, path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "there is no file"),
        ("folder", "is a folder"),
        ("empty", "is empty"),
        ("text", "is not a model file"),
        ("truncated", "truncated"),
        ("truncated safetensors", "damaged safetensors"),
        ("scripted", "scripted models cannot be pruned"),
        ("list", "got a list"),
        ("no state", "a dict with the keys epoch"),
        ("empty dict", "an empty dict"),
    ],
)
def test_unusable_file_is_one_line(tmp_path, kind, message):
    broken(kind, tmp_path / "m.pt")
    with pytest.raises(InputError, match=message) as caught:
        load_model(tmp_path / "m.pt", Options())
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert str(tmp_path / "m.pt") in str(caught.value)
