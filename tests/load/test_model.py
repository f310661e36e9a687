"""Networks, live or from a file, come out as an own copy in one state, or are refused."""

import copy
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from slimnet.errors import InputError
from slimnet.load.files import sha256_of
from slimnet.load.model import load_model
from slimnet.options import Options

NET = """
from torch import nn
def net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    )
"""


def tiny() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    )


def test_live_network_is_copied_and_not_changed():
    model = tiny().half().train()
    model.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    loaded = load_model(model, Options())
    assert loaded.source == "Sequential"
    assert loaded.sha256 is None
    assert not loaded.model.training
    assert all(p.dtype == torch.float32 and p.requires_grad for p in loaded.model.parameters())
    with torch.no_grad():
        next(loaded.model.parameters()).zero_()
    assert model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float16


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("place", ["live", "file", "state dict"])
def test_other_precisions_become_float32_and_that_is_said(tmp_path, kind, place):
    model, options = nn.Linear(2, 2).to(kind), Options()
    source = model if place == "live" else tmp_path / "m.pt"
    if place == "file":
        torch.save(model, source)
    elif place == "state dict":
        torch.save(model.state_dict(), source)
        options = Options(arch="torch.nn:Linear", arch_arg=("in_features=2", "out_features=2"))
    loaded = load_model(source, options)
    assert torch.equal(loaded.model.weight, model.weight.float())
    (note,) = loaded.notes
    assert str(kind) in note
    assert load_model(nn.Linear(2, 2), Options()).notes == ()


def test_file_from_a_gpu_needs_none(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:3")
        torch.save(tiny(), tmp_path / "m.pt")
    assert b"cuda:3" in (tmp_path / "m.pt").read_bytes()
    loaded = load_model(tmp_path / "m.pt", Options()).model
    assert all(p.device.type == "cpu" for p in loaded.parameters())


def test_file_of_a_compiled_network_says_what_to_save(tmp_path):
    torch.save(torch.compile(tiny()), tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"save model\._orig_mod"):
        load_model(tmp_path / "m.pt", Options())
    torch.save(torch.compile(tiny()).state_dict(), tmp_path / "m.pt")
    (tmp_path / "net.py").write_text(NET)
    load_model(tmp_path / "m.pt", Options(arch=f"{tmp_path}/net.py:net"))


def test_wrappers_are_taken_off():
    model = tiny()
    wrapped = torch.compile(nn.DataParallel(model))
    loaded = load_model(wrapped, Options()).model
    assert type(loaded) is nn.Sequential
    assert list(loaded.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("name", ["model.pt", "model.bin", "model"])
def test_whole_network_from_a_file_gives_the_same_output(tmp_path, name):
    model = tiny().eval()
    torch.save(model.train(), tmp_path / name)
    loaded = load_model(str(tmp_path / name), Options())
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(loaded.model(images), model.eval()(images))
    assert loaded.sha256 == sha256_of(tmp_path / name)
    assert len(loaded.sha256) == 64
    assert not loaded.model.training


def test_data_parallel_network_from_a_file(tmp_path):
    torch.save(nn.DataParallel(tiny()), tmp_path / "m.pt")
    assert type(load_model(tmp_path / "m.pt", Options()).model) is nn.Sequential


def test_network_inside_a_checkpoint(tmp_path):
    torch.save({"epoch": 3, "model": tiny()}, tmp_path / "m.pt")
    assert isinstance(load_model(tmp_path / "m.pt", Options()).model, nn.Sequential)


def test_safetensors_is_known_by_its_content(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("from torch import nn\ndef net(): return nn.Linear(3, 2)\n")
    weight = torch.rand(2, 3)
    save_file({"weight": weight, "bias": torch.zeros(2)}, tmp_path / "m.whatever")
    loaded = load_model(tmp_path / "m.whatever", Options(arch="net.py:net")).model
    assert torch.equal(loaded.weight, weight)


def test_arch_given_with_a_whole_network_takes_its_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self): super().__init__(3, 2)\n"
    )
    torch.save(nn.Linear(3, 2), "m.pt")
    assert type(load_model("m.pt", Options(arch="net.py:Net")).model).__name__ == "Net"


def test_arch_with_a_live_network_is_refused():
    with pytest.raises(InputError, match="leave arch out"):
        load_model(tiny(), Options(arch="torchvision:resnet18"))


def broken(kind: str | bytes, path) -> None:
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
        torch.jit.script(nn.Sequential(nn.Linear(2, 2), *[nn.GELU()] * 99)).save(str(path))
        held = sum(entry.file_size for entry in zipfile.ZipFile(path).infolist())
        assert held > path.stat().st_size  # its code is compressed
    elif kind == "arrays":
        with path.open("wb") as file:
            np.savez(file, images=np.zeros((2, 2)))
    elif isinstance(kind, bytes):
        path.write_bytes(kind + bytes(90))
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
        ("scripted", "is TorchScript; .* give the original network, or its state dict with --arch"),
        ("arrays", "it holds arrays, as data do; the model comes first"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        (b"<!DOCTYPE html>", "is a web page"),
        (b"\x1c\0\0\0TFL3", "is a TensorFlow Lite file"),
        (b"\x80\x04", "pickle wrote it"),
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


@pytest.mark.parametrize(
    ("key", "value"), [("0.weight", torch.nan), ("4.bias", torch.inf), ("1.running_var", torch.inf)]
)
def test_tensor_that_is_not_finite_is_named(key, value):
    model = tiny()
    model.state_dict()[key].view(-1)[0] = value
    with pytest.raises(InputError, match=key):
        load_model(model, Options())


def test_mask_buffer_may_hold_minus_infinity_but_not_nan():
    model = tiny()
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    load_model(model, Options())
    model.mask[0] = torch.nan
    with pytest.raises(InputError, match="mask"):
        load_model(model, Options())


def test_network_without_parameters_is_refused():
    with pytest.raises(InputError, match="no parameters"):
        load_model(nn.Sequential(nn.ReLU()), Options())


def test_lazy_and_meta_tensors_are_refused():
    with pytest.raises(InputError, match="no values"):
        load_model(nn.LazyLinear(2), Options())
    with pytest.raises(InputError, match="no values"):
        load_model(nn.Linear(2, 2, device="meta"), Options())


def test_live_scripted_network_is_refused():
    with pytest.raises(InputError, match="scripted"):
        load_model(torch.jit.script(nn.Linear(2, 2)), Options())
