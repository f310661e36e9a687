import copy
import dataclasses
import hashlib
import sysconfig
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from slimnet.errors import InputError, ProofError
from slimnet.export import onnx_file
from slimnet.export.onnx_file import onnx_parity, translate, write_onnx


def export_onnx(model, example, path, opset=20, metadata=(), **options):
    return write_onnx(translate(model, example, opset), path, dict(metadata), **options)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.branch = nn.Conv2d(4, 4, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 5)

    def forward(self, images):
        features = torch.relu(self.norm(self.conv(images)))
        return self.head(self.drop((features + self.branch(features)).mean((2, 3))))


class DataDependent(nn.Module):
    def forward(self, images):
        return images if images.sum() > 0 else -images


class Several(nn.Module):
    """Two inputs, and outputs in a dict: one is called as an input, one is a tuple."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, image, mask):
        found = self.conv(image) * mask
        return {"mask": found + mask, "out": found.mean((2, 3)), "both": (found, found.sum(1))}


@torch.library.custom_op("slimnet_tests::negated", mutates_args=())
def negated(images: torch.Tensor) -> torch.Tensor:
    return -images


negated.register_fake(torch.empty_like)


class Unknown(nn.Module):
    def forward(self, images):
        return negated(images)


class OtherwiseForOnnx(nn.Module):
    def forward(self, images):
        return -images if torch.onnx.is_in_onnx_export() else negated(images)


class FixedBatch(nn.Module):
    def forward(self, images):
        return images.reshape(2, -1)


class OneForAll(nn.Module):
    def forward(self, images):
        return images.mean(0, keepdim=True)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    network = Net().train()
    network.norm.running_mean.uniform_(-1, 1)
    network.norm.running_var.uniform_(0.5, 2)
    return network


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def exported(net, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "slim.onnx"
    before = copy.deepcopy(net.state_dict())
    file = export_onnx(net, images, path, 20, {"slimnet": "0", "a": "b"}, inputs=images)
    after = net.state_dict()
    unchanged = net.training and all(torch.equal(before[name], after[name]) for name in before)
    return file, unchanged


def test_leaves_the_model_as_it_was(exported):
    assert exported[1]


def test_record_tells_what_is_on_disk(exported):
    file, _ = exported
    content = file.path.read_bytes()
    assert file.bytes == len(content)
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert set(file.parity) == {1, 3}
    assert [parity.images for parity in file.parity.values()] == [1, 3]
    assert all(parity.relative_error < 1e-5 for parity in file.parity.values())
    assert [entry.name for entry in file.path.parent.iterdir()] == ["slim.onnx"]


def test_file_has_one_free_input_and_output(exported):
    proto = onnx.load(exported[0].path)
    assert [value.name for value in proto.graph.input] == ["input"]
    assert [value.name for value in proto.graph.output] == ["output"]
    for value in (*proto.graph.input, *proto.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 20)]
    assert {entry.key: entry.value for entry in proto.metadata_props} == {"slimnet": "0", "a": "b"}


def test_file_holds_no_local_path(exported):
    content = exported[0].path.read_bytes()
    repo = Path(__file__).resolve().parents[2]
    for local in (Path.home(), repo, sysconfig.get_paths()["purelib"], __file__):
        assert str(local).encode() not in content
    assert b"stack_trace" not in content
    assert b"pkg." not in content, "no note of the exporter is left"


def test_same_model_gives_same_bytes(exported, net, images, tmp_path):
    again = export_onnx(
        net, images, tmp_path / "b.onnx", 20, {"a": "b", "slimnet": "0"}, check_batches=(1,)
    )
    assert again.path.read_bytes() == exported[0].path.read_bytes()


def test_runs_on_any_batch(exported, net, images):
    session = onnxruntime.InferenceSession(exported[0].path)
    output = session.run(None, {"input": images.repeat(4, 1, 1, 1)[:7].numpy()})[0]
    expected = copy.deepcopy(net).eval()(images.repeat(4, 1, 1, 1)[:7]).detach().numpy()
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_parity_fails_on_a_corrupted_weight(exported, net, images, tmp_path):
    assert onnx_parity(net, exported[0].path, images).images == 2
    proto = onnx.load(exported[0].path)
    weight = next(tensor for tensor in proto.graph.initializer if len(tensor.dims) == 4)
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] += 0.5
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(proto, tmp_path / "corrupt.onnx")
    with pytest.raises(ProofError, match="apart"):
        onnx_parity(net, tmp_path / "corrupt.onnx", images)


def test_parity_fails_on_output_that_is_not_finite(exported, net, images):
    with pytest.raises(ProofError, match="finite"):
        onnx_parity(net, exported[0].path, torch.full_like(images, torch.nan))


def test_parity_fails_on_a_file_that_does_not_run(net, images, tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"not onnx")
    with pytest.raises(ProofError, match=r"no\.onnx"):
        onnx_parity(net, tmp_path / "no.onnx", images)


def test_failed_proof_leaves_no_file_and_keeps_the_old_one(net, images, tmp_path, monkeypatch):
    path = tmp_path / "slim.onnx"
    path.write_bytes(b"old")
    monkeypatch.setattr(onnx_file, "TOLERANCE", -1.0)
    with pytest.raises(ProofError, match="apart"):
        export_onnx(net, images, path, 20, {})
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [
        ("slim.onnx", b"old")
    ]


def test_opset_that_torch_cannot_write_is_refused(net, images, tmp_path):
    with pytest.raises(InputError, match=r"asked for 9, torch wrote \d\d"):
        export_onnx(net, images, tmp_path / "x.onnx", 9, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (DataDependent(), "cannot export DataDependent: "),
        (Unknown(), "cannot export Unknown to ONNX: "),
        (FixedBatch(), "it must take any batch size"),
        (OneForAll(), "its output is fixed"),
    ],
)
def test_network_that_cannot_be_exported_is_refused_quietly(
    network, message, images, tmp_path, capfd
):
    with pytest.raises(InputError, match=message) as caught:
        export_onnx(network, images, tmp_path / "x.onnx", 20, {})
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_several_inputs_and_outputs_have_names_and_are_all_compared(images, tmp_path, monkeypatch):
    torch.manual_seed(0)
    network, example = Several().eval(), (images, torch.rand(2, 1, 8, 8))
    file = export_onnx(network, example, tmp_path / "x.onnx", 20, {}, inputs=example)
    session = onnxruntime.InferenceSession(str(file.path), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["image", "mask"]
    names = ["mask_output", "out", "both_0", "both_1"]
    assert [value.name for value in session.get_outputs()] == names
    given = session.run(names, {"image": images.numpy(), "mask": example[1].numpy()})
    with torch.no_grad():
        expected = network(*example)
    flat = [expected["mask"], expected["out"], *expected["both"]]
    for one, other in zip(flat, given, strict=True):
        assert torch.allclose(one, torch.from_numpy(other), atol=1e-5)
    monkeypatch.setattr(network, "forward", lambda *_: {**expected, "both": (flat[2], 2 * flat[3])})
    with pytest.raises(ProofError, match="apart"):
        onnx_parity(network, file.path, example)


def test_what_a_network_does_for_onnx_only_is_tried_where_the_rest_cannot_be_written(
    images, tmp_path
):
    file = export_onnx(OtherwiseForOnnx(), images, tmp_path / "x.onnx", 20, {})
    assert [node.op_type for node in onnx.load(file.path).graph.node] == ["Neg"]


def test_export_is_quiet(net, images, tmp_path, capfd):
    export_onnx(net, images, tmp_path / "x.onnx", 20, {}, check_batches=())
    assert capfd.readouterr() == ("", "")


def test_folder_that_is_not_there_is_refused(net, images, tmp_path, monkeypatch):
    proto = onnx.ModelProto()
    monkeypatch.setattr("slimnet.export.onnx_file.to_onnx", lambda *_: proto)
    with pytest.raises(InputError, match=r"cannot write x\.onnx"):
        export_onnx(net, images, tmp_path / "absent" / "x.onnx", 20, {})


def test_record_is_frozen(exported):
    with pytest.raises(dataclasses.FrozenInstanceError):
        exported[0].bytes = 0


def test_weights_of_linear_layers_on_tokens_carry_their_layers_names(tmp_path):
    # a product with the transposed weight, which PyTorch's exporter leaves nameless
    part = nn.Sequential(nn.Linear(6, 5, bias=False), nn.GELU(), nn.Linear(5, 6))
    model, tokens = nn.Sequential(nn.Linear(4, 6), part, part, nn.Flatten()), torch.rand(2, 7, 4)
    export_onnx(model.eval(), tokens, tmp_path / "tokens.onnx", 20, {})
    proto = onnx.load(tmp_path / "tokens.onnx")
    weights = {value.name: numpy_helper.to_array(value) for value in proto.graph.initializer}
    for name in ("0", "1.0", "1.2"):
        expected = model.get_submodule(name).weight.detach().T
        assert np.array_equal(weights[f"{name}.weight.T"], expected)
