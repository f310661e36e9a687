"""The static list: what is on it exists, and suffices for whole networks."""

import pytest
import torch
import torchvision
from torch import nn

from slimnet.load.model import load_model
from slimnet.load.safe_pickle import MODULE_CLASSES, OTHER_NAMES, _resolve_listed
from slimnet.options import Options


@pytest.mark.parametrize("name", sorted(MODULE_CLASSES | OTHER_NAMES))
def test_every_name_on_the_list_exists_and_is_what_it_must_be(name):
    if name == "torch.nn.functional.gelu":  # named by some releases of torch, not by this one
        return
    ((found, refitted),) = _resolve_listed(name)
    assert refitted == name
    assert (isinstance(found, type) and issubclass(found, nn.Module)) or name in OTHER_NAMES


@pytest.mark.parametrize(
    "name", ["squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5", "regnet_y_400mf"]
)
def test_torchvision_networks_load_whole(tmp_path, name):
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, num_classes=4).eval()
    torch.save(model, tmp_path / "m.pt")
    loaded = load_model(tmp_path / "m.pt", Options()).model
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))


def test_functions_that_networks_hold_load(tmp_path):
    layer = nn.TransformerEncoderLayer(4, 2, 8, activation="gelu")
    torch.save(layer, tmp_path / "m.pt")
    load_model(tmp_path / "m.pt", Options())
    vision = torchvision.models.VisionTransformer(8, 4, 1, 1, 8, 8, num_classes=2)
    torch.save(vision, tmp_path / "v.pt")
    load_model(tmp_path / "v.pt", Options())
