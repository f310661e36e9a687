"""The demo: train a small network on scanned digits, save it, and slim it with the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from slimnet.errors import InputError, SlimnetError

EPOCHS = 8
COMMAND = ["slimnet", "compress", "model.pt", "--max-drop", "5"]
CONFIGURATION = """\
# What `slimnet compress model.pt --max-drop 5` reads in this folder.
data = "held_out.npz"             # for the budget and the final report
calibration_data = "train.npz"    # for saliency and oracle
scale = 0.0625                    # pixels are 0 to 16
out = "slim"
"""


def run_demo(folder: Path) -> None:
    """Train, save and slim a network for scikit-learn's digits in ``folder``; takes a minute.

    Raises:
        InputError: scikit-learn is missing, or the folder is in use by something else or cannot
            be written.
        SlimnetError: the command that is shown did not succeed.
    """
    images, labels = _digits()
    _require_own(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # first of all: by it the next demo knows the folder as one of its own
        (folder / "slimnet.toml").write_text(CONFIGURATION, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
    held_out = 800
    print(f"Training a small network on {len(images) - held_out} scanned digits ...", flush=True)
    network = _train(images[held_out:], labels[held_out:])
    torch.save(network, folder / "model.pt")
    for name, part in (("held_out", slice(held_out)), ("train", slice(held_out, None))):
        numpy.savez(folder / f"{name}.npz", images=images[part], labels=labels[part])
    print(f"Saved model.pt, the digits and slimnet.toml to {folder}/. Now, in that folder:\n")
    print("    $ " + " ".join(COMMAND) + "\n", flush=True)
    done = subprocess.run([sys.executable, "-m", *COMMAND], cwd=folder, check=False)
    if done.returncode:
        raise SlimnetError("the demo's command failed; its message is above")


def _require_own(folder: Path) -> None:
    """Refuse a folder of the user's, also one with a slimnet.toml: the demo replaces model.pt."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"the demo wants a folder; {folder} is a file: choose another name")
    configuration = folder / "slimnet.toml"
    own = configuration.is_file() and configuration.read_text("utf-8", "replace") == CONFIGURATION
    if any(folder.iterdir()) and not own:
        raise InputError(f"the demo wants a folder of its own; {folder} holds something else")


def _digits() -> tuple[numpy.ndarray, numpy.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            "the demo needs scikit-learn for its digits: pip install 'slimnet[demo]'"
        ) from error
    digits = load_digits()
    order = numpy.random.default_rng(0).permutation(len(digits.target))
    images = digits.images[order].astype(numpy.uint8)[..., None]
    return images, digits.target[order].astype(numpy.int64)


def _network() -> nn.Sequential:
    def convolution(inputs: int, outputs: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]

    return nn.Sequential(
        *convolution(1, 64),
        *convolution(64, 128),
        nn.MaxPool2d(2),
        *convolution(128, 128),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def _train(images: numpy.ndarray, labels: numpy.ndarray) -> nn.Sequential:
    torch.manual_seed(0)
    network = _network()
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 16
    targets = torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.05)
    for _ in range(EPOCHS):
        for batch in torch.split(torch.randperm(len(inputs)), 64):
            optimizer.zero_grad()
            loss: Tensor = functional.cross_entropy(network(inputs[batch]), targets[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return network.eval()
