"""Small networks and data that many tests share; everything runs in milliseconds."""

from __future__ import annotations

import functools
import os
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from slimnet.records.data import Split, Splits

# Small networks gain nothing from threads, and on a busy machine waiting for one costs much.
torch.set_num_threads(1)

HERE = Path(__file__).parent
# Files and folders that start processes, export, train, draw, or run whole commands, and a few that
# take long. All others are fast.
SLOW = (
    "benchmarks",
    "cli/test_lasting_pipe.py",
    "cli/test_outputs.py",
    "data/test_hostile_data.py",
    "execution/test_layout.py",
    "export",
    "finetune",
    "groups/test_branches.py",
    "groups/test_groups.py",
    "groups/test_nan_tracing.py",
    "groups/test_provable.py",
    "groups/test_random_networks.py",
    "groups/test_structures.py",
    "load/test_hostile_models.py",
    "repair/test_refit.py",
    "report/test_branches.py",
    "report/test_html.py",
    "report/test_plots.py",
    "saliency/test_score.py",
    "search",
    "test_action.py",
    "test_apply.py",
    "test_bench.py",
    "test_class_balance.py",
    "test_cli.py",
    "test_compare.py",
    "test_compress.py",
    "test_demo.py",
    "test_detection.py",
    "test_inputs.py",
    "test_inspect.py",
    "test_int8.py",
    "test_own_layers.py",
    "test_own_task.py",
    "test_package.py",
    "test_public_api.py",
    "test_readme.py",
    "test_resume.py",
    "test_runtimes.py",
    "test_unchanged.py",
    "test_unlabelled.py",
    "test_verify.py",
    "timing",
    "zoo",
)
# These measure the memory of a process by a module that Windows lacks, in the units of Linux.
LINUX_ONLY = ("data/test_hostile_data.py", "load/test_hostile_models.py", "test_demo.py")
collect_ignore = [] if sys.platform == "linux" else [str(HERE / name) for name in LINUX_ONLY]


def pytest_addoption(parser):
    parser.addoption("--networks", type=int, default=100, help="random networks to check")
    parser.addoption(
        "--kills", type=int, default=0, help="random moments to kill a run at (test_resume.py)"
    )


def pytest_collection_modifyitems(items):
    """Mark as fast each test whose file SLOW does not list."""
    for item in items:
        here = item.path.relative_to(HERE)
        if not {here.as_posix(), here.parts[0]} & set(SLOW):
            item.add_marker("fast")


@contextmanager
def _locked(path, *, alone):
    """Hold a lock on a file. Others may hold it too, unless one of them wants it alone."""
    import fcntl  # Windows lacks it: run the tests without -n there

    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """Run tests beside each other, but a test that measures time alone."""
    turn, machine = item.config.rootpath / "pyproject.toml", Path(__file__)
    with ExitStack() as held:
        if "PYTEST_XDIST_WORKER" in os.environ:
            # a test that waits to be alone lets no other begin
            with _locked(turn, alone=True):
                alone = item.get_closest_marker("alone") is not None
                held.enter_context(_locked(machine, alone=alone))
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_users(tmp_path_factory):
    """Cache measurements in a temporary folder, here and in commands that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _onnx_functions_are_read_once():
    """Let torch read its table of ONNX functions at the first export, not at every one.

    Reading takes a second or two. Nothing is changed where torch has no such table.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        read = ONNXRegistry.from_torchlib
    except (ImportError, AttributeError):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(read)))
        yield


class Residual(nn.Module):
    """A stream of coupled channels, a depthwise and a grouped convolution, a flatten."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 6, 3, padding=1)
        self.outer = nn.Conv2d(6, 8, 3, padding=1)
        self.wide = nn.Conv2d(8, 12, 1)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.grouped = nn.Conv2d(12, 8, 3, padding=1, groups=2)
        self.hidden = nn.Linear(8 * 4, 10)
        self.head = nn.Linear(10, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)), inplace=True)
        x = functional.relu(x + self.outer(functional.relu(self.inner(x))))
        x = self.grouped(functional.relu(self.depthwise(self.wide(x))))
        x = functional.adaptive_avg_pool2d(functional.relu(x), 2).flatten(1)
        return self.head(functional.relu(self.hidden(x)))


def randomise_norms(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            with torch.no_grad():
                module.weight.copy_(torch.randn(module.num_features, generator=generator))
                module.bias.copy_(torch.randn(module.num_features, generator=generator))
    return model


@pytest.fixture
def residual() -> nn.Module:
    torch.manual_seed(0)
    return randomise_norms(Residual()).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def make_split(name: str, inputs: Tensor, labels: Tensor, batch_size: int = 16) -> Split:
    batches = list(zip(inputs.split(batch_size), labels.split(batch_size), strict=True))
    return Split(name, len(labels), batches)


@pytest.fixture(scope="session")
def trained() -> tuple[nn.Module, Splits]:
    """Return a small trained network that says which quadrant is bright (4 classes)."""
    torch.manual_seed(0)
    labels = torch.arange(240) % 4
    inputs = 0.3 * torch.randn(240, 1, 8, 8)
    for i, label in enumerate(labels.tolist()):
        row, column = 4 * (label // 2), 4 * (label % 2)
        inputs[i, 0, row : row + 4, column : column + 4] += 1
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs[:120]), labels[:120]).backward()
        optimizer.step()
    parts = (("calibration", 0, 120), ("selection", 120, 180), ("test", 180, 240))
    made = [make_split(name, inputs[a:b], labels[a:b]) for name, a, b in parts]
    return model.eval(), Splits(*made, description="bright spots", classes=4, preprocessing={})


@pytest.fixture(scope="session")
def confirmable(trained) -> Splits:
    """Return the splits with 240 images for confirmation and none for a test.

    Noise on all that a drop is measured on lets slimming cost accuracy.
    """
    splits, generator = trained[1], torch.Generator().manual_seed(0)
    inputs, labels = (torch.cat(part) for part in zip(*splits.calibration.batches, strict=True))
    held_out = make_split("confirmation", inputs.repeat(2, 1, 1, 1), labels.repeat(2))
    parts = {"selection": splits.selection, "confirmation": held_out}
    noisy = {
        name: replace(
            part,
            batches=[
                (x + 1.2 * torch.randn(x.shape, generator=generator), y) for x, y in part.batches
            ],
        )
        for name, part in parts.items()
    }
    return replace(splits, test=None, **noisy)


@pytest.fixture(scope="session")
def compressed(trained, tmp_path_factory) -> Path:
    """Return a folder with model.pt and its result in slim; a test that changes it copies it."""
    import slimnet

    folder = tmp_path_factory.mktemp("compressed")
    torch.save(trained[0], folder / "model.pt")
    slimnet.compress(
        folder / "model.pt", trained[1], 20, out=folder / "slim", confidence=0.5, oracle_k=3,
        objective="params", latency_samples=3, latency_batch=(1,),
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def confirmed(trained, confirmable, tmp_path_factory) -> Path:
    """Return a folder as ``compressed``, of a run whose drop was confirmed to be within 10."""
    import slimnet

    folder = tmp_path_factory.mktemp("confirmed")
    torch.save(trained[0], folder / "model.pt")
    slimnet.compress(
        folder / "model.pt", confirmable, 10, out=folder / "slim", oracle_k=3, objective="params",
        latency_samples=3, latency_batch=(1,),
    )  # fmt: skip
    return folder
