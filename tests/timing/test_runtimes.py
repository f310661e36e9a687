"""The promises of every runtime. Whoever adds one to ``timing/runtimes.py`` starts here.

``Toy`` is the least that a runtime has to be.
"""

from __future__ import annotations

import copy
from importlib.machinery import ModuleSpec

import pytest
import torch
from torch import nn

from slimnet import options
from slimnet.errors import InputError, ProofError, SlimnetError
from slimnet.export.onnx_file import translate, write_onnx
from slimnet.timing import latency, onnx_runtime, runtimes
from slimnet.timing import openvino as openvino_module
from slimnet.timing.latency import measure_latency
from slimnet.timing.onnx_runtime import open_session, session_options
from slimnet.timing.parity import require_parity
from slimnet.timing.paying_widths import measure_paying_widths
from slimnet.timing.runtime import Runtime, RuntimeDoesNotStart, TimedNetwork
from slimnet.timing.runtimes import RUNTIMES, available_runtimes, require_runtime

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
EXAMPLE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
OPTIONS = options.Options(threads=1, latency_samples=10)


class Toy(Runtime):
    """PyTorch on the CPU, layers timed by their number of weights."""

    reads_onnx = False
    library = "toy 1.0"

    def open(self, network, threads):
        module = copy.deepcopy(network.module("cpu"))
        return lambda batch, way: lambda: module(batch)

    def layer_times(self, networks, batch, threads):
        modules = [network.module("cpu").named_modules() for network in networks]
        return [{n: m.weight.numel() / 1e6 for n, m in each if hasattr(m, "weight")}
                for each in modules]  # fmt: skip

    def pair_timer(self, width, threads):
        return lambda: float(-(-width // 16))  # as if it computed 16 channels at once


ALL = {**RUNTIMES, "toy": Toy("toy", "toy-cpu", "cpu")}


@pytest.fixture(params=ALL)
def runtime(request, monkeypatch):
    # wiring alone is tested of compiled networks: to compile them takes minutes
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    runtime = ALL[request.param]
    if runtime.missing():
        pytest.skip(f"this machine lacks {runtime.missing()}")
    return runtime


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A wide and a narrow network, and both as they are given to a runtime."""
    folder, timed, modules = tmp_path_factory.mktemp("pair"), [], []
    for width in (256, 8):
        model = nn.Sequential(
            nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 16, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
        ).eval()  # fmt: skip
        file = folder / f"{width}.onnx"
        write_onnx(translate(model, EXAMPLE, 20), file, {}, check_batches=())
        modules.append(model)
        timed.append(TimedNetwork(file, lambda device, model=model: model))
    return modules, tuple(timed)


@pytest.fixture
def unchanged(pair):
    """The test does not change a network."""
    before = [copy.deepcopy(model.state_dict()) for model in pair[0]]
    yield
    for model, state in zip(pair[0], before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        assert not any(module._forward_pre_hooks for module in model.modules())


def test_names_are_unique_and_every_choice_of_the_option_is_there():
    assert [runtime.name for runtime in ALL.values()] == list(ALL)
    assert len({way for runtime in ALL.values() for way in runtime.ways}) >= len(ALL)
    assert set(options.RUNTIMES) <= set(RUNTIMES)


def test_a_measurement_names_runtime_threads_library_and_processor(runtime):
    text = runtime.measured_on(3)
    assert text.startswith(f"{runtime.long_name}, threads 3, {runtime.library}, ")
    assert "\n" not in text


@pytest.mark.alone
def test_the_smaller_network_is_faster_in_every_way_and_batch_size(
    runtime, pair, unchanged, monkeypatch
):
    monkeypatch.setattr(latency, "MAX_SECONDS", 0.05)
    threads, draws = torch.get_num_threads(), torch.get_rng_state()
    results = measure_latency(runtime, pair[1], EXAMPLE, (1, 3), OPTIONS)
    assert [(r.runtime, r.batch_size) for r in results] == [
        (way, size) for way in runtime.ways for size in (1, 3)
    ]
    assert all(r.speedup > 1.5 for r in results)
    assert all(len(r.slim_samples_ms) >= 10 for r in results)
    assert all(r.threads == runtime.threads_used(1) for r in results)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), draws)


@pytest.mark.alone
def test_layers_have_the_names_of_the_pytorch_network(runtime, pair, unchanged):
    wide, narrow = runtime.layer_times(pair[1], EXAMPLE, 1)
    assert {"0", "2", "6"} <= set(wide)
    assert set(wide) == set(narrow) <= {"", "0", "2", "6"}
    assert all(milliseconds >= 0 for milliseconds in (*wide.values(), *narrow.values()))
    assert wide["2"] > narrow["2"]
    for row in runtime.compare_layers(pair[1], EXAMPLE, 1):
        assert (row.runtime, row.batch_size) == (runtime.long_name, 2)


@pytest.mark.alone
def test_a_wider_pair_takes_longer_and_no_random_number_is_drawn(runtime):
    draws = torch.get_rng_state()
    narrow, wide = (runtime.pair_timer(width, 1) for width in (4, 128))
    assert min(wide() for _ in range(5)) > 2 * min(narrow() for _ in range(5)) > 0
    assert torch.equal(torch.get_rng_state(), draws)


def test_a_network_that_cannot_run_is_refused(runtime, pair):
    strange = torch.randn(1, 7)
    errors = (SlimnetError, RuntimeError) if isinstance(runtime, Toy) else SlimnetError
    with pytest.raises(errors):
        measure_latency(runtime, pair[1], strange, (1, 3), OPTIONS)


def test_outputs_that_are_checked_are_those_of_pytorch(runtime, pair):
    require_parity(runtime, pair[1], EXAMPLE, (1, 3), 1)
    other = TimedNetwork(pair[1][0].onnx, pair[1][1].module)
    if runtime.checks_outputs:
        with pytest.raises(ProofError, match=f"outputs of {runtime.library} must be within"):
            require_parity(runtime, [other], EXAMPLE, (1,), 1)
    else:
        require_parity(runtime, [other], EXAMPLE, (1,), 1)


def test_paying_widths_are_those_that_the_runtime_times():
    assert measure_paying_widths(ALL["toy"], 1) == tuple(range(16, 129, 16))


@pytest.fixture
def machine(monkeypatch):
    """Pretend that the machine has a GPU or OpenVINO, and which providers ONNX Runtime lists."""

    def pretend(gpu, providers, openvino=False):
        found = ModuleSpec("openvino", None, origin="somewhere") if openvino else None
        monkeypatch.setattr(openvino_module, "find_spec", lambda name: found)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(onnx_runtime.onnxruntime, "get_available_providers", lambda: providers)

    return pretend


@pytest.mark.parametrize(
    ("gpu", "providers", "names"),
    [
        (False, [CPU], ["ort-cpu"]),
        (False, [CUDA, CPU], ["ort-cpu"]),
        (True, [CPU], ["ort-cpu", "torch-cuda"]),
        (True, [CUDA, CPU], ["ort-cpu", "ort-cuda", "torch-cuda"]),
    ],
)
def test_cuda_is_there_only_with_all_that_it_needs(machine, gpu, providers, names):
    machine(gpu, providers)
    assert [runtime.name for runtime in available_runtimes()] == names
    for name in names:
        require_runtime(RUNTIMES[name])


@pytest.mark.parametrize(
    ("gpu", "providers", "name", "words", "not_there"),
    [
        (False, [CPU], "torch-cuda", ["ort-cpu; got torch-cuda", "GPU that PyTorch"], "package"),
        (False, [CPU], "ort-cuda", ["GPU that PyTorch", "and the package"], "or torch"),
        (True, [CPU], "ort-cuda", ["ort-cpu or torch-cuda", "onnxruntime-gpu"], "GPU that"),
    ],
)
def test_missing_parts_are_named_in_one_line(machine, gpu, providers, name, words, not_there):
    machine(gpu, providers)
    with pytest.raises(InputError) as refused:
        require_runtime(RUNTIMES[name])
    message = str(refused.value)
    assert all(text in message for text in words)
    assert not_there not in message
    assert "\n" not in message


def test_openvino_is_there_with_its_package_and_not_with_a_folder_of_its_name(machine, monkeypatch):
    machine(False, [CPU], openvino=True)
    assert [runtime.name for runtime in available_runtimes()] == ["ort-cpu", "openvino"]
    for found in (None, ModuleSpec("openvino", None)):  # a namespace has no origin
        monkeypatch.setattr(openvino_module, "find_spec", lambda name, found=found: found)
        with pytest.raises(InputError, match=r"got openvino, .* openvino: pip install openvino$"):
            require_runtime(RUNTIMES["openvino"])


def test_a_session_that_fell_back_to_the_cpu_is_refused(monkeypatch):
    class Session:
        def __init__(self, *args, providers):
            pass

        def get_providers(self):
            return [CPU]

    monkeypatch.setattr(onnx_runtime.onnxruntime, "InferenceSession", Session)
    assert open_session(b"", session_options(1))
    with pytest.raises(RuntimeDoesNotStart, match="cannot start it"):
        open_session(b"", session_options(1), CUDA)


def test_another_runtime_thread_library_or_processor_is_another_machine(monkeypatch):
    monkeypatch.setattr("slimnet.timing.runtime.processor", lambda: "Fast One, AVX2")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Big GPU")
    monkeypatch.setattr(torch, "__version__", "2.9")
    monkeypatch.setattr(onnx_runtime.onnxruntime, "__version__", "1.23")
    assert [RUNTIMES[name].measured_on(2) for name in ("ort-cpu", "ort-cuda", "torch-cuda")] == [
        "onnxruntime-cpu, threads 2, onnxruntime 1.23, Fast One, AVX2",
        "onnxruntime-cuda, threads 2, onnxruntime 1.23, Big GPU",
        "torch-cuda, threads 2, torch 2.9, Big GPU",
    ]


def test_long_names_are_those_of_earlier_reports():
    assert {name: runtime.ways for name, runtime in runtimes.RUNTIMES.items()} == {
        "ort-cpu": ("onnxruntime-cpu",),
        "ort-cuda": ("onnxruntime-cuda",),
        "torch-cpu": ("torch-cpu",),
        "torch-cuda": ("torch-cuda", "torch-cuda-graph"),
        "torch-compile-cpu": ("torch-cpu-compiled",),
        "torch-compile-cuda": ("torch-cuda-compiled",),
        "openvino": ("openvino-cpu",),
    }
