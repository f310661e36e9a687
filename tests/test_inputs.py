"""Networks of other inputs than images, and of one output, are slimmed without a task."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

import slimnet
from slimnet.export.onnx_file import onnx_parity

QUICK = {
    "confidence": 0.5, "objective": "params", "metrics": "mean_square_weight", "oracle_k": 2,
    "latency_samples": 3, "latency_batch": (1,),
}  # fmt: skip


def signals(count=240):
    """Signals (count, 2, 12) whose first or second half is high, and which."""
    labels = torch.arange(count) % 2
    values = 0.3 * torch.randn(count, 2, 12, generator=torch.Generator().manual_seed(0))
    values[labels == 0, :, :6] += 1
    values[labels == 1, :, 6:] += 1
    return values, labels


def signal_network(outputs):
    return nn.Sequential(
        nn.Conv1d(2, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(),
        nn.Conv1d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool1d(2), nn.Flatten(),
        nn.Linear(16, outputs),
    )  # fmt: skip


def table_network(outputs):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(),
        nn.Linear(16, outputs),
    )  # fmt: skip


def word_network(outputs):
    return nn.Sequential(
        nn.Embedding(9, 8), nn.Flatten(), nn.Linear(8 * 12, 16), nn.ReLU(), nn.Linear(16, outputs)
    )


def train(network, inputs, labels, loss):
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(25):
        optimizer.zero_grad()
        loss(network.train()(inputs), labels).backward()
        optimizer.step()
    return network.eval()


def binary(outputs, labels):
    return functional.binary_cross_entropy_with_logits(outputs[:, 0], labels.float())


@pytest.mark.parametrize(
    ("network", "inputs", "loss"),
    [
        (signal_network(2), signals()[0], functional.cross_entropy),
        (signal_network(1), signals()[0], binary),
        (table_network(2), signals()[0].flatten(1), functional.cross_entropy),
        (word_network(2), (signals()[0][:, 0] > 0.5).long(), functional.cross_entropy),
    ],
)
def test_compress(tmp_path, network, inputs, loss):
    labels = signals()[1]
    train(network, inputs, labels, loss)
    data = TensorDataset(inputs, labels)
    result = slimnet.compress(network, data, 10, out=tmp_path / "slim", **QUICK)
    before, after = result.report.original_size, result.report.slim_size
    assert after.parameters < 0.8 * before.parameters
    assert result.report.selection_drop.original_percent > 90
    with torch.no_grad():
        outputs = result.model(inputs)
    right = outputs.argmax(1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0).long()
    assert 100 * float((right == labels).float().mean()) > 80
    assert onnx_parity(result.model, tmp_path / "slim" / "slim.onnx", inputs[:5]).images == 5
