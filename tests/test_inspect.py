"""What can be removed: each saving is compared with a network that really lacks the unit."""

from __future__ import annotations

import copy
import io
import json
from itertools import pairwise

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn import functional

import slimnet
from slimnet import cli
from slimnet.data.inputs import smaller_inputs
from slimnet.execution.size import measure_size
from slimnet.groups.cut import slim_copy
from slimnet.groups.find import find_groups
from slimnet.groups.group import plan_for
from slimnet.groups.probe import Probe
from slimnet.report.commands import inspection_parts
from slimnet.report.json_report import record_json

ERROR = "slimnet: error: "


class Uneven(nn.Module):
    """One group whose first units carry a 3 x 3 filter more, and the others a 1 x 1 filter."""

    def __init__(self):
        super().__init__()
        self.both = nn.Conv2d(3, 8, 1)
        self.large = nn.Conv2d(3, 2, 3, padding=1)
        self.small = nn.Conv2d(3, 6, 1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.both(x) + torch.cat([self.large(x), self.small(x)], 1)
        return self.head(functional.relu(x)).mean((2, 3))


@pytest.fixture
def uneven():
    torch.manual_seed(0)
    return Uneven().eval()


@pytest.fixture
def network_file(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    torch.save(trained[0], "model.pt")
    torch.save(trained[0].state_dict(), "weights.pt")
    return tmp_path


@pytest.mark.parametrize("name", ["residual", "uneven"])
def test_a_saving_is_the_mean_of_what_networks_without_one_unit_lack(name, request):
    network = request.getfixturevalue(name)
    found = slimnet.inspect(network, input_shape=(3, 8, 8), layers="all")
    example = torch.randn(2, 3, 8, 8)
    whole = measure_size(network, example)
    groups, _ = find_groups(network, example, layers="all")
    assert len(found.groups) == len(groups) > 0
    for offer, group in zip(found.groups, groups, strict=True):
        without = [
            measure_size(slim_copy(network, plan_for([group], [torch.tensor([unit])])), example)
            for unit in range(group.units)
        ]
        assert offer.units == group.units
        assert offer.layers.keys() == {gate.layer for gate in group.gates}
        lacking = [whole.parameters - size.parameters for size in without]
        assert offer.parameters_per_unit == pytest.approx(sum(lacking) / len(lacking))
        lacking = [whole.macs - size.macs for size in without]
        assert offer.macs_per_unit == pytest.approx(sum(lacking) / len(lacking))


def test_groups_channels_and_frozen_layers(residual):
    found = slimnet.inspect(residual, input_shape=[3, 8, 8], layers="all")
    offers = [(offer.layers, offer.channels, offer.units) for offer in found.groups]
    assert ({"stem": 8, "outer": 8}, 16, 8) in offers
    assert ({"wide": 12, "depthwise": 12}, 24, 6) in offers  # channel i goes with i + 6
    assert [(entry.layer, entry.channels) for entry in found.frozen] == [("head", 4)]
    assert (found.channels, found.prunable_channels) == (68, 64)
    assert found.prunable_channels_percent == pytest.approx(100 * 64 / 68)


def test_the_largest_saving_is_that_of_one_unit_a_group(residual):
    found = slimnet.inspect(residual, input_shape=(3, 8, 8), layers="all")
    groups, _ = find_groups(residual, torch.randn(2, 3, 8, 8), layers="all")
    gone = [torch.arange(1, group.units) for group in groups]
    smallest = slim_copy(residual, plan_for(groups, gone))
    assert found.smallest_size == measure_size(smallest, torch.randn(1, 3, 8, 8))
    for kind in ("parameters", "conv_weights", "macs"):
        gone = 1 - getattr(found.smallest_size, kind) / getattr(found.size, kind)
        assert getattr(found, f"removable_{kind}_percent") == pytest.approx(100 * gone)


def test_the_largest_saving_leaves_no_layer_without_channels(uneven):
    found = slimnet.inspect(uneven, input_shape=(3, 8, 8))
    # both keeps a unit of large's and one of small's; head reads both
    assert found.smallest_size.parameters == 2 * (3 + 1) + (27 + 1) + (3 + 1) + (2 * 2 + 2)


def test_the_network_is_not_changed(residual):
    residual.train()
    residual.stem.weight.requires_grad_(False)
    before = copy.deepcopy(residual.state_dict())
    slimnet.inspect(residual)
    assert residual.training
    assert not residual.stem.weight.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in residual.state_dict().items())


def test_nothing_prunable_is_an_offer_of_nothing():
    found = slimnet.inspect(nn.Linear(3, 2))
    assert (found.groups, found.input_shape, found.input_shape_guessed) == ((), (3,), True)
    assert found.smallest_size == found.size
    assert found.removable_parameters_percent == found.removable_conv_weights_percent == 0
    assert "output" in found.frozen[0].reason


def test_a_network_that_cannot_stand_one_unit_is_refused():
    class Proud(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 9), nn.Linear(9, 2)

        def forward(self, x):
            x = self.first(x)
            if x.shape[1] < 2:
                raise ValueError("too\nnarrow")
            return self.last(x)

    with pytest.raises(slimnet.InputError, match=r"one unit left .* \(ValueError: too\)"):
        slimnet.inspect(Proud())


class Padded(nn.Module):
    """A residual block whose shortcut widens the stream by channels of zeros, without weights."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, outputs // inputs, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.stride, self.zeros = outputs // inputs, (outputs - inputs) // 2

    def forward(self, x):
        inner = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.relu(inner + functional.pad(x, [0] * 4 + [self.zeros] * 2))


@pytest.fixture
def padded():
    torch.manual_seed(0)
    widths = [8, 8, 8, 16, 16, 32, 32]
    blocks = [Padded(inputs, outputs) for inputs, outputs in pairwise(widths)]
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
    ).eval()  # fmt: skip


def test_a_frozen_stream_is_one_line_and_every_layer_in_json(padded):
    found = slimnet.inspect(padded, input_shape=(3, 16, 16))
    stream = ["0", *(f"{block}.conv2" for block in range(2, 8))]
    reasons = {entry.layer: entry.reason for entry in found.frozen}
    assert list(reasons) == [*stream, "10"]
    assert len({reasons[layer] for layer in stream}) == 1
    assert "fewer channels" in reasons["0"]
    assert {name for group in found.groups for name in group.layers} == {
        f"{block}.conv1" for block in range(2, 8)
    }
    assert [e["layer"] for e in json.loads(record_json(found))["frozen"]] == list(reasons)
    table = inspection_parts(found)[1]
    assert [str(cell) for cell in table.columns[0].cells] == ["0, 2.conv2, ... (7 layers)", "10"]
    assert [str(cell) for cell in table.columns[1].cells] == [str(3 * 8 + 2 * 16 + 2 * 32), "4"]


def test_a_frozen_stream_is_proven_once(padded, monkeypatch):
    tried = []
    objection = Probe.objection

    def counted(self, plan, *tolerance):
        tried.append({layer for layer in plan if "conv2" in layer and "out" in plan[layer]})
        return objection(self, plan, *tolerance)

    monkeypatch.setattr(Probe, "objection", counted)
    find_groups(padded, torch.randn(2, 3, 16, 16))
    with_stream = [layers for layers in tried if layers]
    # all 7 groups, halves of them down to the one that fails, and no further trial of it
    assert len(with_stream) <= 2 * 4
    # the others are proven once, though the stream's layers get a second chance by tracing
    assert len(tried) <= 24


def test_command_prints_tables_and_the_shape(network_file, capsys):
    assert cli.run(["inspect", "model.pt"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    for words in ("group", "frozen layers", "makes the network's output", "conv weights", "÷",
                  "Input shape: 1,32,32 (guessed"):  # fmt: skip
        assert words in told.out
    assert max(map(len, told.out.splitlines())) <= 80
    assert [path.name for path in network_file.iterdir()] == ["model.pt", "weights.pt"]


def test_json_is_one_document_and_nothing_else(network_file, trained, capsys):
    assert cli.run(["inspect", "model.pt", "--json", "--input-shape", "1,8,8", "--seed", "3"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    content = json.loads(told.out)
    same = slimnet.inspect(trained[0], input_shape=(1, 8, 8))
    assert content["input_shape"] == [1, 8, 8]
    assert (content["input_shape_guessed"], content["seed"]) == (False, 3)
    assert content["groups"][0]["parameters_per_unit"] == same.groups[0].parameters_per_unit
    assert content["removable_macs_percent"] == same.removable_macs_percent > 0
    assert content["seconds"] > 0
    assert content["source"] == "model.pt"
    assert len(content["source_sha256"]) == 64


def test_what_matters_of_slimnet_toml_is_taken(network_file, capsys):
    (network_file / "net.py").write_text(
        "from torch import nn\n\ndef build(width):\n    return nn.Sequential(\n"
        "        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),\n"
        "        nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),\n"
        "        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))\n"
    )
    (network_file / "slimnet.toml").write_text(
        "model = 'weights.pt'\narch = 'net.py:build'\narch_arg = ['width=8']\nmax_drop = 3\n"
        "data = 'val'\nout = 'there'\nobjective = 'latency'\nstep = 4\n"
    )
    assert cli.run(["inspect", "--json"]) == 0
    assert [group["units"] for group in json.loads(capsys.readouterr().out)["groups"]] == [8, 8]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "no model given: slimnet inspect model.pt"),
        ("absent.pt", "there is no file"),
        ("weights.pt", "weights without the network"),
        ("model.pt --input-shape 3,8,x", "whole numbers of 1 or more such as 3,224,224; got '3,8"),
        ("model.pt --input-shape 3,8,8", "fails on inputs of the shape (2, 3, 8, 8)"),
        ("model.pt --max-drop 5", "--max-drop"),
        ("model.pt --layers some --json", "layers is auto or conv or all; got 'some'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, told, network_file, capsys):
    assert cli.run(["inspect", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(ERROR)
    assert err.count("\n") == 1
    assert told in err


def test_the_proof_takes_smaller_images_where_the_network_does():
    anything = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    large = torch.randn(2, 3, 96, 80)
    assert smaller_inputs(anything, large).shape == (2, 3, 64, 64)
    fixed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 94 * 78, 2)).eval()
    for network in (fixed, nn.Conv2d(3, 4, 3)):
        assert smaller_inputs(network, large) is large


def test_branches_are_offered_with_their_share_of_the_macs(residual):
    found = slimnet.inspect(residual, input_shape=(3, 8, 8), layers="all")
    offers = {offer.name: offer for offer in found.branches}
    assert offers["inner"].layers == ("inner",)
    assert offers["inner"].constant == ("outer",)
    macs = 2 * 6 * 8 * 9 * 64
    assert offers["inner"].macs_percent == pytest.approx(100 * macs / found.size.macs)
    assert "no longer depends on the input" in offers["stem"].reason
    slim = slim_copy(residual, plan_for(*zip(*_whole(residual, "inner"), strict=True)))
    assert found.size.macs - measure_size(slim, torch.randn(1, 3, 8, 8)).macs == macs


def test_a_layer_that_is_kept_keeps_its_group_and_branch(residual):
    found = slimnet.inspect(residual, input_shape=(3, 8, 8), layers="all", keep=("outer",))
    assert found.keep == ("outer",)
    reasons = {entry.layer: entry.reason for entry in found.frozen}
    assert reasons["outer"] == "kept as asked (--keep outer)"
    assert reasons["stem"] == "coupled to outer, kept as asked (--keep outer)"
    branches = {branch.name: branch.reason for branch in found.branches}
    assert branches["inner"] == "it holds outer, kept as asked (--keep outer)"
    assert all("outer" not in group.layers for group in found.groups)


def test_the_text_says_what_a_branch_is_and_what_is_left_of_it(residual):
    console = Console(file=io.StringIO(), width=80, color_system=None)
    for part in inspection_parts(slimnet.inspect(residual, input_shape=(3, 8, 8), layers="all")):
        console.print(part)
    lines = [line.strip("│ ") for line in console.file.getvalue().splitlines()]
    (row,) = [line for line in lines if line.startswith("inner") and "%" in line]
    assert [cell.strip() for cell in row.split("│")][:2] == ["inner", "outer"]
    text = " ".join(" ".join(lines).split())
    for words in ("branches that can go", "reduced to a bias", "layers that can only go together",
                  "branches that cannot go", "named by one of its layers"):  # fmt: skip
        assert words in text


def _whole(network, name):
    groups, _ = find_groups(network, torch.randn(2, 3, 8, 8), layers="all")
    return [(group, torch.arange(group.units if group.name == name else 0)) for group in groups]


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.other, self.head = nn.Conv2d(3, 4, 3), nn.Linear(10, 4), nn.Linear(4, 2)

    def forward(self, image, numbers):
        return self.head(self.conv(image).mean((2, 3)) + self.other(numbers))


def test_several_inputs_each_have_a_shape(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = slimnet.inspect(TwoInputs(), input_shape=((3, 8, 8), (10,)), layers="all")
    assert found.input_shape == ((3, 8, 8), (10,))
    assert found.groups[0].layers == {"conv": 4, "other": 4}
    torch.save(TwoInputs(), "m.pt")
    arguments = ["inspect", "m.pt", "--trust-pickle", "--input-shape", "3,8,8"]
    assert cli.run([*arguments, "--input-shape", "10"]) == 0
    assert "Input shape: 3,8,8 and 10." in capsys.readouterr().out
    assert cli.run(arguments) == 2
    assert "one for each input" in capsys.readouterr().err
