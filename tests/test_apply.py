"""A plan on another file of the same network: its own weights, proven, and no other network."""

from __future__ import annotations

import copy
import json
import shutil

import onnxruntime
import pytest
import torch
from torch import nn

import slimnet
from slimnet.cli.app import run
from slimnet.export.plan_file import save_plan
from slimnet.groups.cut import channels_of, slim_copy

PLAN = {"0": {"out": (1, 5)}, "3": {"in": (1, 5), "out": (0, 2, 7)}, "4": {"out": (0, 2, 7)},
        "8": {"in": (*range(0, 4), *range(8, 12), *range(28, 32))}}  # fmt: skip
FILES = ["original.onnx", "plan.json", "report.json", "slim.onnx", "slim.pt2", "slim.safetensors"]
SHAPE = (1, 8, 8)


@pytest.fixture
def retrained(trained):
    """The same network with other weights everywhere."""
    torch.manual_seed(3)
    model = copy.deepcopy(trained[0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def plan_file(trained, tmp_path):
    save_plan(PLAN, tmp_path / "plan.json", "0" * 64, channels_of(trained[0], PLAN))
    return tmp_path / "plan.json"


@pytest.fixture
def here(plan_file, retrained, monkeypatch):
    monkeypatch.chdir(plan_file.parent)
    torch.save(retrained, "retrained.pt")
    return plan_file.parent


def test_the_slim_network_is_the_models_own_weights_without_the_plans(here, retrained):
    before = copy.deepcopy(retrained.state_dict())
    applied = slimnet.apply("plan.json", retrained, out="new", input_shape=SHAPE)
    assert all(torch.equal(v, before[k]) for k, v in retrained.state_dict().items())
    wanted = slim_copy(retrained, PLAN).eval()
    assert sorted(path.name for path in (here / "new").iterdir()) == FILES
    images = torch.randn(3, *SHAPE)
    with torch.no_grad():
        expected = wanted(images)
        assert torch.equal(applied.model(images), expected)
        assert torch.equal(slimnet.load_slim("new", copy.deepcopy(retrained))(images), expected)
    session = onnxruntime.InferenceSession("new/slim.onnx")
    assert torch.from_numpy(session.run(None, {"input": images.numpy()})[0]).allclose(
        expected, atol=1e-5
    )
    assert applied.report.masked_slim.relative_error <= 1e-8
    assert applied.report.slim_size.parameters == sum(p.numel() for p in wanted.parameters())
    assert slimnet.verify("new", model=retrained).checks[0].holds


def test_the_shape_of_an_input_is_the_plans(compressed, retrained, trained):
    applied = slimnet.apply(compressed / "slim", retrained)
    assert applied.report.input_shape == tuple(next(iter(trained[1].test.batches))[0].shape[1:])
    assert not applied.report.input_shape_guessed
    assert slimnet.apply(
        compressed / "slim", retrained, input_shape=(1, 16, 16)
    ).report.input_shape == (1, 16, 16)


def test_nothing_is_written_without_a_folder(here, retrained):
    there = set(here.iterdir())
    assert slimnet.apply("plan.json", retrained).folder is None
    assert set(here.iterdir()) == there


def test_a_result_of_compress_is_replayed_and_the_outcome_can_be_verified(here, compressed, capsys):
    shutil.copytree(compressed, here, dirs_exist_ok=True)
    assert run(["apply", "slim", "model.pt", "--input-shape", "1,8,8", "--out", "again"]) == 0
    told = capsys.readouterr().out
    assert "Nothing was repaired" in told
    assert "the file that the plan was made for" in told
    assert run(["apply", "slim", "retrained.pt", "--out", "new"]) == 0
    told = capsys.readouterr().out
    assert "the file that" not in told
    assert "(1, 8, 8)" in told  # the plan's
    assert "guessed" not in told
    assert run(["verify", "new", "--model", "retrained.pt"]) == 0
    assert run(["apply", "new", "retrained.pt", "--out", "new"]) == 2
    assert run(["verify", "new", "--data", "none.npz"]) == 2
    assert "measured no drop on data" in capsys.readouterr().err


def wider(model):
    model[0], model[3] = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)


def shorter(model):
    del model[8]


def other(model):
    model[4] = nn.Identity()


def slim_already(model):
    slimnet.apply_plan(model, PLAN)


def never_the_same(model):
    model[1] = nn.RReLU()
    model[1].forward = lambda x: x + torch.rand_like(x)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (wider, "whose layer '0' has 8 output channels; in this one it has 16: it is another"),
        (shorter, "names the layer '8', which this network does not have"),
        (other, "channels of '4', which in this network is a Identity"),
        (slim_already, "has 8 output channels; in this one it has 6: the plan was applied"),
        (never_the_same, "gives another output each time"),
    ],
)
def test_another_network_is_refused_with_what_differs(here, retrained, change, told):
    change(retrained)
    with pytest.raises(slimnet.InputError, match=told.replace("(", r"\(")) as refused:
        slimnet.apply("plan.json", retrained, out="new", input_shape=SHAPE)
    assert "\n" not in str(refused.value)
    assert not (here / "new").exists()


def test_a_plan_without_the_coupled_weights_fails_the_proof(here, retrained):
    save_plan({"0": {"out": (1,)}}, here / "plan.json", None)
    with pytest.raises(slimnet.ProofError):
        slimnet.apply("plan.json", retrained, out="new", input_shape=SHAPE)
    save_plan(PLAN | {"8": {"in": tuple(range(12))}}, here / "plan.json", None)
    with pytest.raises(slimnet.ProofError, match="differs from the masked one"):
        slimnet.apply("plan.json", retrained, out="new", input_shape=SHAPE)
    assert not (here / "new").exists()


def test_an_empty_plan_is_told(here, retrained):
    save_plan({}, here / "plan.json", None)
    applied = slimnet.apply("plan.json", retrained, input_shape=SHAPE)
    assert "removes nothing" in applied.report.notes[0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("apply plan.json retrained.pt", "an output folder must be given"),
        ("apply retrained.pt plan.json --out new", "a plan is a folder"),
        ("apply nowhere retrained.pt --out new", "a plan is a folder"),
        ("apply plan.json --out new", "no model given"),
        ("apply plan.json retrained.pt --out .", "the plan comes from ."),
        ("apply plan.json absent.pt --out new", "there is no file"),
        ("apply plan.json retrained.pt --out new --input-shape 3,8,8", "fails on inputs"),
    ],
)
def test_mistakes_end_in_one_line_and_write_nothing(here, capsys, words, told):
    assert run(words.split()) == 2
    error = capsys.readouterr().err.strip()
    assert told in error
    assert len(error.splitlines()) == 1
    assert not (here / "new").exists()


def test_a_plan_of_an_older_file_is_still_judged_by_its_indices(here, retrained):
    content = json.loads((here / "plan.json").read_text())
    del content["channels"]
    (here / "plan.json").write_text(json.dumps(content))
    assert slimnet.apply("plan.json", retrained, input_shape=SHAPE).plan == PLAN
    slimnet.apply_plan(retrained, PLAN)
    with pytest.raises(slimnet.InputError, match="was applied before"):
        slimnet.apply("plan.json", retrained, input_shape=SHAPE)
