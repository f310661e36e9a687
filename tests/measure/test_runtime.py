"""Which runtimes a machine has, and what it is told where one is missing."""

from __future__ import annotations

import pytest

from slimnet.errors import InputError
from slimnet.measure import runtime
from slimnet.measure.runtime import available_runtimes, open_session, require_runtime
from slimnet.settings import RUNTIMES

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture
def machine(monkeypatch):
    """Pretend that the machine has a GPU, or not, and which providers ONNX Runtime lists."""

    def pretend(gpu, providers):
        monkeypatch.setattr(runtime.torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(runtime.onnxruntime, "get_available_providers", lambda: providers)

    return pretend


@pytest.mark.parametrize(
    ("gpu", "providers", "names"),
    [
        (False, [CPU], ["onnxruntime-cpu"]),
        (False, [CUDA, CPU], ["onnxruntime-cpu"]),
        (True, [CPU], ["onnxruntime-cpu", "torch-cuda"]),
        (True, [CUDA, CPU], ["onnxruntime-cpu", "onnxruntime-cuda", "torch-cuda"]),
    ],
)
def test_cuda_is_there_only_with_all_that_it_needs(machine, gpu, providers, names):
    machine(gpu, providers)
    assert available_runtimes() == names
    for name in names:
        require_runtime(name)


@pytest.mark.parametrize(
    ("gpu", "providers", "option", "told", "not_told"),
    [
        (False, [CPU], "torch-cuda", ["ort-cpu; got torch-cuda", "GPU that PyTorch"], "package"),
        (False, [CPU], "ort-cuda", ["GPU that PyTorch", "and the package"], "or torch"),
        (True, [CPU], "ort-cuda", ["ort-cpu or torch-cuda", "onnxruntime-gpu"], "GPU that"),
    ],
)
def test_what_is_missing_is_named_in_one_line(machine, gpu, providers, option, told, not_told):
    machine(gpu, providers)
    with pytest.raises(InputError) as refused:
        require_runtime(RUNTIMES[option])
    message = str(refused.value)
    assert all(words in message for words in told)
    assert not_told not in message
    assert "\n" not in message


def test_a_session_that_fell_back_to_the_cpu_is_refused(monkeypatch):
    class Session:
        def __init__(self, *args, providers):
            pass

        def get_providers(self):
            return [CPU]

    monkeypatch.setattr(runtime.onnxruntime, "InferenceSession", Session)
    assert open_session(b"", "onnxruntime-cpu", None)
    with pytest.raises(InputError, match="cannot start it"):
        open_session(b"", "onnxruntime-cuda", None)
