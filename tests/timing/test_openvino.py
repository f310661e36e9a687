"""OpenVINO: its settings, the names of layers in its own graph, and what it says where it fails."""

from __future__ import annotations

import os
import subprocess
import sys

import onnx
import pytest
import torch
from torch import nn

from slimnet.errors import ProofError
from slimnet.export.onnx_file import translate, write_onnx
from slimnet.timing import openvino as module
from slimnet.timing.latency import measure_latency
from slimnet.timing.runtime import TimedNetwork
from slimnet.timing.runtimes import RUNTIMES

RUNTIME = RUNTIMES["openvino"]
# not pytest.importorskip: that would import the package's telemetry, too
pytestmark = pytest.mark.skipif(bool(RUNTIME.missing()), reason="openvino is not installed")
EXAMPLE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    """Sums, a depthwise convolution, and an activation that only some runtimes fuse."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.inner = nn.Conv2d(16, 48, 3, padding=1)
        self.outer = nn.Conv2d(48, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.last = nn.Linear(16, 4)

    def forward(self, x):
        x = self.stem(x).relu()
        x = (x + self.norm(self.outer(self.inner(x).relu()))).relu()
        x = nn.functional.hardswish(self.depthwise(x))
        return self.last(x.mean((2, 3)))


def export(model, example, file):
    write_onnx(translate(model.eval(), example, 20), file, {}, check_batches=())
    return TimedNetwork(file, lambda device: model)


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    torch.manual_seed(0)
    return export(Residual(), EXAMPLE, tmp_path_factory.mktemp("residual") / "network.onnx")


LAYERS = {"stem", "inner", "outer", "depthwise", "last"}


@pytest.mark.alone
def test_every_layer_has_its_own_time_and_what_is_fused_into_it_counts_with_it(residual):
    times, again = RUNTIME.layer_times([residual, residual], EXAMPLE.repeat(4, 1, 1, 1), 1)
    assert set(times) == set(again)
    assert set(times) >= LAYERS
    assert set(times) <= {*LAYERS, ""}
    assert min(times["inner"], times["outer"]) > times["stem"] > times["last"] >= 0
    assert times["inner"] + times["outer"] > times[""]


def test_layers_without_names_are_found_by_their_outputs(residual, tmp_path):
    proto = onnx.load(residual.onnx)
    for node in proto.graph.node:
        node.name = ""
    onnx.save(proto, tmp_path / "unnamed.onnx")
    (times,) = RUNTIME.layer_times([TimedNetwork(tmp_path / "unnamed.onnx")], EXAMPLE, 1)
    assert set(times) >= LAYERS
    rows = RUNTIME.compare_layers([residual, TimedNetwork(tmp_path / "unnamed.onnx")], EXAMPLE, 1)
    by_layer = {row.layer: row for row in rows}
    assert "Parameter" not in {row.operator for row in rows}, "it does not run"
    assert {by_layer[name].operator for name in LAYERS - {"last"}} == {"Conv"}
    assert all(by_layer[name].slim_ms is not None for name in LAYERS)


def test_layers_that_are_computed_together_share_the_time_by_their_weights(tmp_path):
    model = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 4))
    file = export(model, torch.randn(2, 32), tmp_path / "network.onnx").onnx
    names = module._Names(onnx.load(file))
    first, _, last = onnx.load(file).graph.node
    together = ["Reshape_1", f"{first.name}/WithoutBiases", first.name, last.output[0], ""]
    shares = dict(names.shares("output", "Subgraph", together))
    assert shares == {(first.name, "Gemm"): 256 / 288, (last.name, "Gemm"): 32 / 288}
    assert dict(names.shares("input_abcd_acdb_x/y", "Reorder", [])) == {
        ("input_abcd_acdb_x/y", "Reorder"): 1.0
    }


def test_linear_layers_on_tokens_are_found(tmp_path):
    model = nn.Sequential(nn.Linear(8, 64, bias=False), nn.GELU(), nn.Linear(64, 8))
    file = export(model, torch.randn(2, 50, 8), tmp_path / "network.onnx")
    (times,) = RUNTIME.layer_times([file], torch.zeros(4, 50, 8), 1)
    assert {"0", "2"} <= set(times)


def test_times_are_those_of_the_last_runs_alone(monkeypatch, residual):
    """OpenVINO gives means over all runs, of which the first ones take longer."""
    total = {2: 60.0, 2 + module.PROFILED_RUNS: 60.0 + 5.0 * module.PROFILED_RUNS}
    monkeypatch.setattr(module, "_total_ms", lambda _, runs: {("node_conv2d", "x"): total[runs]})
    (found,) = RUNTIME.node_times(residual.onnx, [EXAMPLE.numpy()], 1).values()
    assert found == [5.0]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_network_runs_in_float32_with_the_users_threads_and_for_low_latency(residual, threads):
    request = module._request(
        module._read(residual.onnx), [EXAMPLE.numpy()], module._settings(threads)
    )
    model = request.get_compiled_model()
    assert model.get_property("INFERENCE_NUM_THREADS") == threads
    assert model.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert str(model.get_property("PERFORMANCE_HINT")).endswith("LATENCY")
    assert list(model.inputs[0].shape) == list(EXAMPLE.shape)  # compiled for the batch size
    assert RUNTIME.threads_used(threads) == threads


def test_all_inputs_and_outputs_are_there_in_their_order(tmp_path):
    class Several(nn.Module):
        def forward(self, image, mask):
            return {"sum": image + mask, "difference": (image - mask, image.mean((2, 3)))}

    image, mask = EXAMPLE, torch.rand(2, 1, 32, 32)
    file = export(Several(), (image, mask), tmp_path / "network.onnx")
    found = RUNTIME.outputs(file, (image, mask), 1)
    for one, other in zip(found, (image + mask, image - mask, image.mean((2, 3))), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_file_that_does_not_run_is_a_failed_proof_in_one_line(residual, tmp_path, timing_options):
    (tmp_path / "no.onnx").write_bytes(b"not onnx")
    pair = (residual, TimedNetwork(tmp_path / "no.onnx"))
    with pytest.raises(ProofError, match=r"OpenVINO cannot load no\.onnx: ") as refused:
        measure_latency(RUNTIME, pair, EXAMPLE, (1,), timing_options)
    assert "\n" not in str(refused.value)
    with pytest.raises(ProofError, match="OpenVINO cannot run a batch of 5: ") as refused:
        measure_latency(RUNTIME, (residual,) * 2, torch.randn(1, 7), (5,), timing_options)
    assert "\n" not in str(refused.value)


@pytest.fixture
def timing_options():
    from slimnet.options import Options

    return Options(latency_samples=2)


def test_its_telemetry_is_not_imported(tmp_path):
    code = (
        "import sys; from slimnet.timing import RUNTIMES;"
        "assert 'openvino' not in sys.modules, 'it is imported only where it is used';"
        "print(RUNTIMES['openvino'].library, any('telemetry' in name.split('.')[0]"
        " for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert not list(tmp_path.iterdir()), "its telemetry writes an identity there"
    assert done.stdout.split() == [*RUNTIME.library.split(), "False"]
