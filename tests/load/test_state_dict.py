"""State dicts are found, fitted, and loaded strictly."""

import argparse
import re

import pytest
import torch
from torch import nn

from slimnet.errors import InputError
from slimnet.load.checkpoint import load_weights
from slimnet.load.model import load_model
from slimnet.options import Options

NET = (
    "from torch import nn\n"
    "def net(width=4):\n"
    "    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))\n"
)


def network(width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))


@pytest.fixture
def options(tmp_path, monkeypatch) -> Options:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    return Options(arch="net.py:net")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "network", "net", None])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "_orig_mod.module."])
def test_nested_and_prefixed_state_dicts_load(options, key, prefix):
    state = network().state_dict()
    named = {prefix + name: value for name, value in state.items()}
    checkpoint = {"epoch": 3, "args": argparse.Namespace(lr=0.1), key: named} if key else named
    torch.save(checkpoint, "m.pt")
    loaded = load_model("m.pt", options).model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_prefix_that_the_network_has_itself_stays():
    model = nn.ModuleDict({"model": nn.Linear(2, 2)})
    state = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    load_weights(model, state, "m.pt")
    assert torch.equal(model["model"].weight, torch.ones(2, 2))


def test_legacy_file_loads(options):
    state = network().state_dict()
    torch.save(state, "m.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(load_model("m.pt", options).model[0].weight, state["0.weight"])


def test_half_precision_weights_become_float32(options):
    torch.save(network().half().state_dict(), "m.pt")
    assert load_model("m.pt", options).model[0].weight.dtype == torch.float32


def test_missing_batch_counter_is_no_error(options):
    state = network().state_dict()
    del state["1.num_batches_tracked"]
    torch.save(state, "m.pt")
    load_model("m.pt", options)


def test_state_dict_without_arch_says_how_to_give_it(tmp_path):
    torch.save(network().state_dict(), tmp_path / "m.pt")
    with pytest.raises(InputError, match="--arch torchvision:resnet18"):
        load_model(tmp_path / "m.pt", Options())


def test_mismatch_names_the_keys_of_each_kind(options):
    state = network().state_dict()
    state["0.weight"] = torch.zeros(4, 3, 5, 5)
    del state["0.bias"]
    state |= {f"extra{number}": torch.zeros(1) for number in range(7)}
    torch.save(state, "m.pt")
    with pytest.raises(InputError) as caught:
        load_model("m.pt", options)
    text = str(caught.value)
    assert "1 missing (0.bias)" in text
    assert "7 unexpected (extra0, extra1, extra2, extra3, extra4, ...)" in text
    assert "1 of another shape (0.weight (4, 3, 5, 5) instead of (4, 3, 3, 3))" in text


def test_nan_in_a_state_dict_names_the_tensor(options):
    state = network().state_dict()
    state["0.bias"][1] = torch.nan
    torch.save(state, "m.pt")
    with pytest.raises(InputError, match=r"0\.bias.*1 of 4"):
        load_model("m.pt", options)


def ones() -> dict[str, torch.Tensor]:
    return {name: torch.ones_like(value) for name, value in network().state_dict().items()}


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


def average(key):
    def saved(state):
        return {"epoch": 3, "model": state, key: ones(), "optimizer": {"lr": 0.1}}

    return saved


@pytest.mark.parametrize(
    ("save", "note"),
    [
        (average("state_dict_ema"), r"under \['state_dict_ema'\] of the file, not those under 'mo"),
        (average("model_ema"), r"under \['model_ema'\]"),
        (lambda _: {"model": None, "ema": {"module": ones()}}, r"under \['ema'\]\['module'\]"),
        (lambda state: {"ema": {"decay": 0.9}, "model": ones(), "net": state}, r"under \['model'"),
        (lambda _: torch.optim.swa_utils.AveragedModel(network()).state_dict()
                   | under("module.", ones()), "named module.* in the file; left out: n_averaged"),
        (lambda _: {"state_dict": under("net.", ones())}, r"named net\.\* in the file$"),
        (lambda _: under("a.b.", ones()) | {"loss.weight": torch.zeros(3)}, "left out: loss.weigh"),
        (lambda state: under("online.", state) | under("ema_model.", ones()), "named ema_model."),
    ],
)  # fmt: skip
def test_what_a_training_saves_is_read_and_it_is_said_which_was_taken(options, save, note):
    torch.save(save(network().state_dict()), "m.pt")
    loaded = load_model("m.pt", options)
    assert all(bool((value == 1).all()) for value in loaded.model.state_dict().values())
    (said,) = loaded.notes
    assert re.search(note, said)


def test_a_network_that_is_there_twice_must_be_chosen(options):
    torch.save(under("student.", ones()) | under("teacher.", ones()), "m.pt")
    with pytest.raises(InputError, match=r"2 times, under student\., teacher\.: save the state"):
        load_model("m.pt", options)


def test_an_average_of_half_precision_module_beside_none(tmp_path):
    saved = {"model": None, "ema": network().half(), "optimizer": None}
    torch.save(saved, tmp_path / "m.pt")
    loaded = load_model(tmp_path / "m.pt", Options())
    assert torch.equal(loaded.model[0].weight, saved["ema"][0].weight.float())
    taken, precision = loaded.notes
    assert "['ema']" in taken
    assert "float16" in precision


def test_an_averaging_wrapper_is_taken_off():
    averaged = torch.optim.swa_utils.AveragedModel(network())
    loaded = load_model(averaged, Options())
    assert (loaded.source, loaded.model[0].out_channels) == ("Sequential", 4)
