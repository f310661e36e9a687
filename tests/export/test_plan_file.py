import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from slimnet.errors import InputError
from slimnet.export.plan_file import load_plan, plan_sha256, save_plan, save_weights

PLAN = {"conv1": {"out": (0, 3), "in": ()}, "conv2": {"in": (0, 3)}}


def test_plan_comes_back(tmp_path):
    save_plan(PLAN, tmp_path / "plan.json", "abc")
    assert load_plan(tmp_path / "plan.json") == PLAN
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content["source_sha256"] == "abc"
    assert content["plan_sha256"] == plan_sha256(PLAN)


def test_hash_sees_content_not_order():
    turned = {"conv2": {"in": (0, 3), "out": ()}, "conv1": {"out": (0, 3)}, "conv3": {"out": ()}}
    assert plan_sha256(PLAN) == plan_sha256(turned)
    assert plan_sha256(PLAN) != plan_sha256({"conv1": {"out": (0, 2)}, "conv2": {"in": (0, 3)}})
    assert plan_sha256({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, r"version 1; plan\.json .*\(version: .*use the slimnet that wrote it"),
        ({"format": "other"}, r"format 'slimnet-plan' .*\(format: "),
        ({"plan": []}, r"\(plan: "),
        ({"plan": {"conv": [1]}}, r"\(plan\.conv: "),
        ({"plan": {"conv": {"sideways": [1]}}}, r"\(plan\.conv\.sideways"),
        ({"plan": {"conv": {"out": [2, 1]}}}, r"plan\.conv\.out: .*the indices must rise"),
        ({"plan": {"conv": {"out": [1, 1]}}}, "rise"),
        ({"plan": {"conv": {"out": [-1]}}}, "rise"),
        ({"plan": {"conv": {"out": [True]}}}, r"plan\.conv\.out\.0: .*integer"),
        ({"plan": {"conv": {"out": [1.0]}}}, "integer"),
        ({"plan": {"conv": {"out": 1}}}, r"plan\.conv\.out: "),
    ],
)
def test_malformed_plan_is_refused(tmp_path, changes, message):
    path = tmp_path / "plan.json"
    save_plan(PLAN, path, None)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=message) as refused:
        load_plan(path)
    assert str(refused.value).isprintable(), "one line"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"1", b"[" * 100_000])
def test_file_that_is_no_plan_is_refused(tmp_path, content):
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"plan\.json"):
        load_plan(path)


def test_plan_that_is_absent_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"plan\.json"):
        load_plan(tmp_path / "plan.json")


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("view", torch.arange(8.0).reshape(2, 4).t())


def test_weights_load_strictly_even_when_shared(tmp_path):
    model, other = Tied(), Tied()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_weights(model, tmp_path / "weights.safetensors")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=True)
    for name, value in before.items():
        assert torch.equal(other.state_dict()[name], value)
        assert torch.equal(model.state_dict()[name], value)
    assert model.second.weight is model.first.weight
    assert len(list(tmp_path.iterdir())) == 1


def test_state_that_is_not_tensors_is_refused(tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

    with pytest.raises(InputError, match="_extra_state is a dict"):
        save_weights(Extra(2, 2), tmp_path / "weights.safetensors")


def test_folder_that_is_absent_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        save_plan(PLAN, tmp_path / "absent" / "plan.json", None)
    with pytest.raises(InputError, match="cannot write"):
        save_weights(nn.Linear(1, 1), tmp_path / "absent" / "w.safetensors")
