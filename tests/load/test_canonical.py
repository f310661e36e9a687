"""Layers that compute their weights, or pad or scale by themselves, become plain; others stay."""

from __future__ import annotations

import copy

import pytest
import torch
from own_layers import (
    IMAGE,
    OTHERS,
    PLAIN,
    Affine,
    Conditional,
    EqualRate,
    Same,
    Standardised,
    frozen_norm,
)
from torch import nn
from torch.nn.utils import parametrizations, parametrize, weight_norm

from slimnet.load import canonical, load_model, use_plain_layers
from slimnet.options import Options


def network(build):
    torch.manual_seed(0)
    return nn.Sequential(build(), nn.PReLU()).eval()  # one parameter at least


@pytest.mark.parametrize("what", PLAIN)
def test_a_plain_layer_gives_the_same(what):
    build, shape, kind = PLAIN[what]
    model = network(build)
    loaded = load_model(model, Options())
    layer = loaded.model[0]
    assert type(layer).__name__ == kind
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in layer.parameters())
    for size in (0, 1, 2, 3):  # of odd and even images
        images = torch.randn(*shape[:2], *[one + size for one in shape[2:]])
        with torch.no_grad():
            expected = model(images)
            # fake quantisation rounds to steps: rounding may tip a value into the next one
            tolerance = 0.02 if what == "fake-quantised" else 1e-5
            assert torch.allclose(loaded.model(images), expected, 1e-5, tolerance)


@pytest.mark.parametrize("what", OTHERS)
def test_other_layers_stay(what):
    model = network(OTHERS[what])
    before = list(model.modules())
    assert use_plain_layers(model) == {}
    assert list(model.modules()) == before


@pytest.mark.parametrize("what", ["standardised", "same, stride", "affine", "spectral norm"])
def test_plain_layers_stay_what_they_are(what):
    model = network(PLAIN[what][0])
    assert use_plain_layers(model)
    layer = model[0]
    assert use_plain_layers(model) == {}
    assert model[0] is layer


def test_torchs_own_layers_are_never_run(monkeypatch):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LSTM(4, 5))
    monkeypatch.setattr(canonical, "layer_like", lambda _: pytest.fail("a layer was run"))
    assert use_plain_layers(model) == {}
    loaded = load_model(model, Options())
    assert loaded.given is None
    assert loaded.notes == ()


@pytest.mark.parametrize("what", PLAIN)
def test_the_network_given_is_not_changed(what):
    build, shape, _ = PLAIN[what]
    model = network(build)
    images = torch.randn(*shape)
    with torch.no_grad():
        before, kinds = model(images), [type(module) for module in model.modules()]
        load_model(model, Options())
        assert torch.equal(model(images), before)
    assert [type(module) for module in model.modules()] == kinds


def test_a_fresh_network_gets_the_same_layers_as_a_trained_one():
    fresh = nn.Sequential(
        frozen_norm(3), Standardised(3, 4, 3), EqualRate(4, 4), Same(4, 4, 3, 2), Affine(4)
    )
    trained = copy.deepcopy(fresh)
    with torch.no_grad():
        for state in fresh.state_dict().values():
            state.zero_()
        fresh[0].running_var.fill_(1)
    for model in (fresh, trained):
        use_plain_layers(model)
    assert str(fresh) == str(trained)
    fresh.load_state_dict(trained.state_dict(), strict=True)


def test_a_shared_module_is_replaced_under_each_name():
    layer = Standardised(6, 6, 3)
    model = nn.ModuleDict({"one": layer, "inner": nn.Sequential(layer), "two": layer})
    use_plain_layers(model)
    assert model["one"] is model["two"] is model["inner"][0]
    assert type(model["one"]) is nn.Conv2d


def test_hooks_stay_and_see_no_made_up_input():
    model, seen = nn.Sequential(Standardised(6, 7, 3)), []
    model[0].register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].shape))
    use_plain_layers(model)
    assert seen == []
    model(torch.randn(IMAGE))
    assert seen == [IMAGE]


def test_modes_and_types_stay():
    model = nn.Sequential(Standardised(6, 7, 3), Affine(7)).to(torch.bfloat16).train()
    use_plain_layers(model)
    assert model[0].weight.dtype == model[1].weight.dtype == torch.bfloat16
    assert model[0].training
    assert not model[1].training  # there are no statistics of a batch to look at


def test_the_note_names_the_classes_and_the_files():
    model = nn.Sequential(Standardised(6, 7, 3), weight_norm(nn.Conv2d(7, 7, 1)), nn.ReLU())
    (note,) = load_model(model, Options()).notes
    assert note.startswith("2 layers compute their weights")
    assert "Conv2d, Standardised" in note
    assert "slimnet.load_slim" in note


def test_a_state_dict_goes_onto_the_network_with_its_own_keys(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "from torch.nn.utils import weight_norm\n"
        "def net():\n"
        "    return nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)))\n"
    )
    model = nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)))
    torch.save(model.state_dict(), tmp_path / "m.pt")
    loaded = load_model(tmp_path / "m.pt", Options(arch=f"{tmp_path}/net.py:net")).model
    assert torch.allclose(loaded[0].weight, model[0].weight)


def test_code_that_fails_leaves_its_layer():
    class Failing(nn.Conv2d):
        def forward(self, x):
            raise ValueError("not today")

    class Unfinished(nn.Module):
        def forward(self, x):
            raise ValueError("nor tomorrow")

    model = nn.Sequential(Failing(6, 7, 3), Conditional(6, 7, 3), nn.Linear(3, 3))
    parametrize.register_parametrization(model[2], "weight", Unfinished(), unsafe=True)
    kinds = [type(layer) for layer in model]
    assert use_plain_layers(model) == {}
    assert [type(layer) for layer in model] == kinds


def test_other_tensors_that_torch_computes_are_fixed_too():
    model = nn.Sequential(parametrizations.weight_norm(nn.LSTM(4, 5), "weight_hh_l0"))
    inputs = torch.randn(6, 2, 4)
    expected = model(inputs)[0]
    assert use_plain_layers(model) == {"0": "LSTM"}
    assert type(model[0]) is nn.LSTM
    assert torch.allclose(model(inputs)[0], expected)
