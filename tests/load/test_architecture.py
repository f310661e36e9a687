"""Architectures by name."""

import sys

import pytest
import torch
from torch import nn

from slimnet.errors import InputError
from slimnet.load.architecture import build_architecture


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "helper_of_net.py").write_text("WIDTH = 5\n")
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "from helper_of_net import WIDTH\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self, inputs=2, name='a'):\n"
        "        super().__init__(inputs, WIDTH)\n"
        "        self.name = name\n"
        "def nothing(): return None\n"
        "def fails(): raise RuntimeError('first\\nsecond')\n"
        "number = 3\n"
    )
    yield tmp_path
    sys.modules.pop("helper_of_net", None)


def test_torchvision_network_with_arguments():
    model = build_architecture("torchvision:squeezenet1_1", ["num_classes=7"])
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 7)


def test_file_and_its_neighbours(folder):
    path_before = list(sys.path)
    model = build_architecture(f"{folder}/net.py:Net", ["inputs=3", "name=plain text"])
    assert model.weight.shape == (5, 3)
    assert model.name == "plain text"
    assert sys.path == path_before


def test_module_in_the_working_folder(folder):
    (folder / "net_in_cwd.py").write_text("from torch import nn\nNet = nn.Linear\n")
    model = build_architecture("net_in_cwd:Net", ["in_features=2", "out_features=4"])
    assert model.weight.shape == (4, 2)


def test_installed_module():
    assert isinstance(build_architecture("torch.nn:Identity", []), nn.Identity)


@pytest.mark.parametrize(
    ("arch", "arguments", "message"),
    [
        ("torchvision:resnet81", [], "did you mean 'resnet18'"),
        ("torchvision:resnet18", ["weights=DEFAULT"], "nothing is downloaded"),
        ("torchvision:resnet18", ["num_clases=3"], "building torchvision:resnet18 failed"),
        ("resnet18", [], "package.module:name"),
        ("missing.py:Net", [], "no Python file"),
        ("no_such_package.x:Net", [], "cannot import"),
        ("net.py:Nett", [], "has no 'Nett'"),
        ("net.py:number", [], "callable"),
        ("net.py:nothing", [], "must return a torch.nn.Module; got a NoneType"),
        ("net.py:fails", [], "RuntimeError: first$"),
        ("net.py:Net", ["inputs"], "name=value"),
        ("net.py:Net", ["=3"], "name=value"),
    ],
)
def test_errors(arch, arguments, message):
    with pytest.raises(InputError, match=message):
        build_architecture(arch, arguments)


def test_file_that_fails_or_exits_while_it_runs(folder):
    (folder / "bad.py").write_text("import sys\nsys.exit(7)\n")
    with pytest.raises(InputError, match="SystemExit") as caught:
        build_architecture("bad.py:Net", [])
    assert isinstance(caught.value.__cause__, SystemExit)
