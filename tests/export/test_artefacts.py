import copy
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from slimnet.errors import InputError, ProofError
from slimnet.export import artefacts
from slimnet.export.artefacts import save_program
from slimnet.export.onnx_file import translate


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, images):
        return self.head(torch.relu(self.norm(self.conv(images))).mean((2, 3)))


class DataDependent(nn.Module):
    def forward(self, images):
        return images if images.sum() > 0 else -images


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().train()


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def saved(net, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("pt2") / "slim.pt2"
    before = copy.deepcopy(net.state_dict())
    parity = save_program(translate(net, images, 20), path)
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    return path, parity


def test_reads_back_as_the_network_at_any_batch(saved, net, images):
    path, parity = saved
    loaded = torch.export.load(path).module()
    many = images.repeat(3, 1, 1, 1)[:7]
    torch.testing.assert_close(loaded(many), copy.deepcopy(net).eval()(many))
    assert parity.images == 3
    assert parity.relative_error <= 1e-6
    assert list(path.parent.iterdir()) == [path]


def test_runs_where_the_class_is_unknown(saved):
    code = (
        "import sys, torch; m = torch.export.load(sys.argv[1]).module();"
        "print(tuple(m(torch.ones(4, 3, 8, 8)).shape))"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", code, str(saved[0])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "(4, 5)"


def test_file_holds_no_local_path_and_no_image(saved, images):
    repo = Path(__file__).resolve().parents[2]
    with zipfile.ZipFile(saved[0]) as archive:
        contents = [name.encode() + archive.read(name) for name in archive.namelist()]
    for local in (Path.home(), repo, sysconfig.get_paths()["purelib"], __file__):
        assert not any(str(local).encode() in content for content in contents)
    assert not any(images[0].numpy().tobytes() in content for content in contents)


def test_program_that_differs_is_not_saved(net, images, tmp_path, monkeypatch):
    other = copy.deepcopy(net).eval()
    with torch.no_grad():
        other.conv.weight[0] += 0.01
    wrong = artefacts._serialise(translate(other, images, 20).program, "Net")
    monkeypatch.setattr(artefacts, "_serialise", lambda *_: wrong)
    with pytest.raises(ProofError, match="apart"):
        save_program(translate(net, images, 20), tmp_path / "x.pt2")
    assert not list(tmp_path.iterdir())


def test_network_that_cannot_be_traced_is_refused_quietly(images, capfd):
    with pytest.raises(InputError, match=r"cannot export DataDependent: .* depends on the values"):
        translate(DataDependent(), images, 20)
    assert capfd.readouterr() == ("", "")
