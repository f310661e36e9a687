import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from slimnet.errors import ProofError
from slimnet.options import Options
from slimnet.records import Artefacts, OnnxFile
from slimnet.timing import latency
from slimnet.timing.latency import measure_latency, measure_speed, summarise
from slimnet.timing.onnx_runtime import OnnxRuntime
from slimnet.timing.runtime import RuntimeDoesNotStart, TimedNetwork
from slimnet.timing.runtimes import RUNTIMES

pytestmark = pytest.mark.alone


def write_product(path, layers):
    """A chain of 256 x 256 products: cost grows with ``layers``; no exporter needed."""
    weight = numpy_helper.from_array(np.eye(256, dtype=np.float32), "weight")
    names = ["input", *[f"h{i}" for i in range(layers - 1)], "output"]
    nodes = [
        helper.make_node("MatMul", [names[i], "weight"], [names[i + 1]]) for i in range(layers)
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 64, 256])
        for name in ("input", "output")
    ]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:], [weight])
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latency")
    return write_product(folder / "large.onnx", 12), write_product(folder / "small.onnx", 1)


@pytest.fixture
def example():
    return torch.randn(2, 64, 256)


def measured(files, example, batch_sizes=(1,), samples=10):
    pair = tuple(TimedNetwork(file) for file in files)
    options = Options(threads=1, latency_samples=samples)
    return measure_latency(RUNTIMES["ort-cpu"], pair, example, batch_sizes, options)


def test_smaller_network_is_faster_and_every_number_is_there(files, example):
    results = measured(files, example, (1, 3), 12)
    assert [result.batch_size for result in results] == [1, 3]
    for result in results:
        assert result.threads == 1
        assert len(result.original_samples_ms) == len(result.slim_samples_ms) == 12
        assert result.original_median_ms == pytest.approx(np.median(result.original_samples_ms))
        assert result.speedup == result.original_median_ms / result.slim_median_ms
        assert result.speedup_low <= result.speedup <= result.speedup_high
        assert result.speedup > 2
        assert result.measurable


def test_time_limit_reduces_samples_but_not_below_ten(files, example, monkeypatch):
    monkeypatch.setattr(latency, "MAX_SECONDS", 0.01)
    (result,) = measured(files, example, samples=5000)
    assert len(result.original_samples_ms) == 10


def test_samples_alternate_and_are_long_enough(monkeypatch):
    clock = [0.0]
    calls = []

    def run_of(name, milliseconds):
        def run():
            calls.append(name)
            clock[0] += milliseconds / 1000

        return run

    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock[0])
    slow, fast = latency.time_in_turns(run_of("A", 5.0), run_of("B", 0.5), 3, 1000.0)
    assert slow == pytest.approx([5.0] * 3)
    assert fast == pytest.approx([0.5] * 3)
    timed = "".join(calls[10:])
    four = timed.count("B") // 3
    assert four >= 4
    assert timed == "A" + "B" * four + "B" * four + "A" + "A" + "B" * four


def test_same_samples_are_no_measurable_difference():
    samples = list(np.random.default_rng(0).normal(1.0, 0.05, 30))
    result = summarise("onnxruntime-cpu", 1, 1, [(samples, samples[::-1])], seed=0)
    assert result.speedup == 1
    assert not result.measurable


def test_interval_is_seeded_and_tells_a_small_difference():
    generator = np.random.default_rng(0)
    slim = generator.normal(1.0, 0.01, 40)
    original = slim * 1.1
    first = summarise("onnxruntime-cpu", 1, 1, [(original, slim)], seed=3)
    assert first == summarise("onnxruntime-cpu", 1, 1, [(original, slim)], seed=3)
    assert first.speedup == pytest.approx(1.1)
    assert 1.05 < first.speedup_low <= 1.1 <= first.speedup_high < 1.15
    assert first.measurable


def test_the_interval_is_over_sessions_too():
    """Each session is precise, and fast or slow as a whole."""
    fast, slow = ([3.0, 3.01] * 5, [1.0, 1.01] * 5), ([3.0, 3.01] * 5, [1.5, 1.51] * 5)
    result = summarise("onnxruntime-cpu", 1, 1, [fast, slow, slow, fast, slow], seed=0)
    assert len(result.slim_samples_ms) == 50
    assert result.speedup_low < 2.05
    assert result.speedup_high > 2.95
    alike = summarise("onnxruntime-cpu", 1, 1, [slow] * 5, seed=0)
    assert alike.speedup_high - alike.speedup_low < 0.05


def test_sessions_of_different_lengths_count_alike():
    sessions = [([2.0] * 30, [1.0] * 30), ([4.0] * 2, [1.0] * 2)]
    result = summarise("onnxruntime-cpu", 1, 1, sessions, seed=0)
    assert (result.speedup, result.speedup_low, result.speedup_high) == (2, 2, 4)


def test_both_files_are_opened_several_times(files, example, monkeypatch):
    opened, open_one = [], OnnxRuntime.open

    def open_and_note(runtime, network, threads):
        opened.append(network.onnx)
        return open_one(runtime, network, threads)

    monkeypatch.setattr(OnnxRuntime, "open", open_and_note)
    monkeypatch.setattr(latency, "MAX_SECONDS", 0.01)
    results = measured(files, example, (1, 2), 11)
    assert opened == [*files] * OnnxRuntime.sessions
    assert [len(result.slim_samples_ms) for result in results] == [10, 10]
    (few,) = measured(files, example, samples=3)
    assert len(few.slim_samples_ms) == 3


def test_slower_is_measurable_too():
    slow = summarise("onnxruntime-cpu", 1, 1, [([1.0, 1.01] * 10, [2.0, 2.01] * 10)], seed=0)
    assert slow.measurable
    assert slow.speedup_high < 1


def test_file_that_does_not_run_is_a_failed_proof(files, example, tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"not onnx")
    with pytest.raises(ProofError, match=r"no\.onnx"):
        measured((files[0], tmp_path / "no.onnx"), example)
    with pytest.raises(ProofError, match="batch of 1"):
        measured(files, torch.randn(1, 3))


def test_another_runtime_that_reads_onnx_is_timed_only_if_it_is_chosen(files, example, monkeypatch):
    there = [RUNTIMES["openvino"], RUNTIMES["ort-cpu"]]
    monkeypatch.setattr(latency, "available_runtimes", lambda: there)
    written = Artefacts(*(OnnxFile(file, 1, "", 20, {}) for file in files), None, {})
    options = Options(latency_batch=(2,), latency_samples=2)
    (result,) = measure_speed(written, None, None, example, options)
    assert result.runtime == "onnxruntime-cpu"


def test_a_runtime_that_does_not_start_is_left_out(files, example, monkeypatch):
    class DoesNotStart(OnnxRuntime):
        def open(self, network, threads):
            raise RuntimeDoesNotStart("a library of CUDA is missing")

    there = [DoesNotStart("ort-cuda", "onnxruntime-cuda", "cpu", "none"), RUNTIMES["ort-cpu"]]
    monkeypatch.setattr(latency, "available_runtimes", lambda: there)
    written = Artefacts(*(OnnxFile(file, 1, "", 20, {}) for file in files), None, {})
    options = Options(latency_batch=(2,), latency_samples=2)
    results = measure_speed(written, None, None, example, options, [3])
    assert [(result.runtime, result.batch_size) for result in results] == [
        ("onnxruntime-cpu", 2), ("onnxruntime-cpu", 3)
    ]  # fmt: skip
