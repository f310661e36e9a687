"""Trains the networks of the paper's Table III that have no published weights.

AlexNet for CIFAR-10, and all networks for CIFAR-100: SGD with momentum on a cosine, random crops
and flips, seeded. Saves a state dict NETWORK.pt (for 100 classes NETWORK_cifar100.pt), and a JSON
file with its accuracy and options:

    python benchmarks/train.py alexnet --data cifar10.zip --out WEIGHTS --epochs 30
    python benchmarks/train.py nin --data torchvision:CIFAR100@ROOT --out WEIGHTS --seconds 7200
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import networks
import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional
from training_data import PADDING, DataError, Images, augmented, prepared, read_data

from slimnet.report.build import environment

NETWORKS = ("lenet5", "cifar10net", "resnet20", "nin", "alexnet")
RECORDED_OPTIONS = ("batch_size", "learning_rate", "weight_decay", "seed")
MOMENTUM = 0.9
WARM_UP_SHARE = 0.02
# On the unnormalised inputs of the paper's networks; NIN and AlexNet have no norms.
LEARNING_RATES = {"resnet20": 0.1, "nin": 0.03, "alexnet": 0.03}


def initialise(model: nn.Module) -> nn.Module:
    """Change the model and return it: weights by He et al. (2015), for networks without norms."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return model


def learning_rate(highest: float, progress: float) -> float:
    """Return the rate at a share of the training: a short linear rise, then half a cosine."""
    if progress < WARM_UP_SHARE:
        return highest * progress / WARM_UP_SHARE
    return highest * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def train(model: nn.Module, data: Images, options: argparse.Namespace) -> tuple[float, float]:
    """Change the model: train it. Return the number of epochs and of seconds.

    It ends after ``epochs`` or ``seconds``, whichever is first, and the cosine ends there too. With
    ``seconds`` the result therefore depends on the machine.
    """
    generator = torch.Generator().manual_seed(options.seed)
    padded = torch.from_numpy(numpy.pad(data.images, ((0, 0), *[(PADDING, PADDING)] * 2, (0, 0))))
    labels = torch.from_numpy(data.labels)
    model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), momentum=MOMENTUM, nesterov=True, weight_decay=options.weight_decay
    )
    steps = math.ceil(len(labels) / options.batch_size)
    started, done, reported = perf_counter(), 0, 0.0
    while (seconds := perf_counter() - started) < options.seconds and done < options.epochs * steps:
        if done % steps == 0:
            order = torch.randperm(len(labels), generator=generator)
        chosen = order[done % steps * options.batch_size :][: options.batch_size]
        progress = max(done / (options.epochs * steps), seconds / options.seconds)
        rate = learning_rate(options.learning_rate, progress + 1e-6)
        inputs = prepared(augmented(padded[chosen], generator), options.network)
        loss = step(model, optimizer, inputs, labels[chosen], rate)
        done += 1
        if seconds - reported > 10 or done % steps == 0:
            report(f"epoch {done / steps:.2f}, {seconds:.0f} s, loss {loss:.3f}")
            reported = seconds
    model.eval()
    return done / steps, perf_counter() - started


def step(
    model: nn.Module, optimizer: torch.optim.SGD, inputs: Tensor, labels: Tensor, rate: float
) -> float:
    """Change the model by one step of SGD, and return the loss before it."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss: Tensor = functional.cross_entropy(model(inputs), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    return float(loss.detach())


def accuracy_percent(model: nn.Module, data: Images, network: str) -> float:
    """Return the top-1 accuracy of a network in eval mode. The network is not changed."""
    right = 0
    with torch.inference_mode():
        for start in range(0, len(data.labels), 500):
            part = slice(start, start + 500)
            scores = model(prepared(torch.from_numpy(data.images[part]), network))
            right += int((scores.argmax(1) == torch.from_numpy(data.labels[part])).sum())
    return 100 * right / len(data.labels)


def save(model: nn.Module, name: str, record: dict[str, Any], folder: Path) -> None:
    """Write the state dict and the record, each under a temporary name that is then renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    temporary = folder / f".{name}.tmp"
    torch.save(state, temporary)
    os.replace(temporary, folder / f"{name}.pt")
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, folder / f"{name}.json")


def report(line: str) -> None:
    """Print a line of progress to stderr."""
    print(line, file=sys.stderr, flush=True)


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--data", required=True, help="zip or folder, .npz, torchvision:NAME@ROOT")
    parser.add_argument("--held-out", help=".npz of test images, where --data is an .npz")
    parser.add_argument("--out", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--epochs", type=float, default=30)
    parser.add_argument("--seconds", type=float, default=math.inf, help="end by then at the latest")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if Path(__file__).parents[1] in (options.out / "x").resolve().parents:
        parser.error(f"--out is a folder outside the repository; got {options.out}")
    if options.learning_rate is None:
        options.learning_rate = LEARNING_RATES.get(options.network, 0.02)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options(arguments)
    try:
        data, held_out = read_data(options.data, options.held_out, options.out)
    except DataError as error:
        raise SystemExit(str(error)) from error
    classes = int(data.labels.max()) + 1
    torch.manual_seed(options.seed)
    model = initialise(getattr(networks, options.network)(num_classes=classes))
    epochs, seconds = train(model, data, options)
    percent = accuracy_percent(model, held_out, options.network)
    name = options.network if classes == 10 else f"{options.network}_cifar{classes}"
    record = {
        "network": options.network,
        "classes": classes,
        "test_accuracy_percent": round(percent, 2),
        "images": {"train": len(data.labels), "test": len(held_out.labels)},
        "epochs": round(epochs, 2),
        "seconds": round(seconds),
        "momentum": MOMENTUM,
        **{name: getattr(options, name) for name in RECORDED_OPTIONS},
        "threads": torch.get_num_threads(),
        "environment": environment(),
    }
    save(model, name, record, options.out)
    print(f"{name}.pt: {percent:.2f} % of {len(held_out.labels)} test images, {seconds:.0f} s")


if __name__ == "__main__":
    main()
