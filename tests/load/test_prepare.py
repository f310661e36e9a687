"""Networks that cannot be used are refused."""

import pytest
import torch
from torch import nn

from slimnet.errors import InputError
from slimnet.load.model import load_model
from slimnet.options import Options


def tiny() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    )


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
