"""Slimming with images alone: the drop is the disagreement with the original, and says so."""

from __future__ import annotations

import io
import json

import pytest
import torch
from rich.console import Console

import slimnet
from slimnet.report.summary import summary_lines
from slimnet.report.tables import result_table

OPTIONS = {
    "confidence": 0.5, "oracle_k": 2, "step": 4, "latency_samples": 10, "latency_batch": (1,),
    "finetune_epochs": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    network, splits = trained
    parts = (splits.calibration, splits.selection, splits.test)
    noise = torch.Generator().manual_seed(0)
    images = tuple(
        torch.cat([x + 1.5 * torch.randn(x.shape, generator=noise) for x, _ in part.batches])
        for part in parts
    )
    out = tmp_path_factory.mktemp("unlabelled") / "slim"
    return slimnet.compress(network, images, 10, out=out, labels="none", **OPTIONS), network, images


def test_the_drop_is_how_often_slim_and_original_disagree(run):
    result, network, images = run
    with torch.no_grad():
        differ = result.model(images[2]).argmax(1) != network(images[2]).argmax(1)
    drop = result.report.test_drop
    assert drop.original_percent == 100
    assert drop.points == pytest.approx(100 * float(differ.double().mean()))
    assert drop.images == len(images[2])
    assert result.plan
    assert 0 < result.report.selection_drop.points <= 10


def test_table_summary_and_json_say_that_there_were_no_labels(run):
    report = run[0].report
    console = Console(file=io.StringIO(), width=120)
    console.print(result_table(report))
    table, summary = console.file.getvalue(), "\n".join(summary_lines(report))
    assert "agreement, 60 test images" in table
    assert "Estimate: agreement went from 100.00 % to " in summary
    told = json.loads((run[0].folder / "report.json").read_text(encoding="utf-8"))
    for text in (summary, " ".join(told["notes"])):
        assert "no labels" in text
        assert "the accuracy dropped by no more than that" in text
    assert "no labels" in told["data"]["description"]
    assert told["settings"]["labels"] == "none"
    for text in (table, summary):
        assert "ccuracy" not in text.replace("the accuracy dropped", "")


def test_a_network_that_always_answers_the_same_is_refused(trained):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    with torch.no_grad():
        network[1].weight.mul_(1e-6)
        network[1].bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    images = torch.randn(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(slimnet.InputError, match="answers class 1 for all"):
        slimnet.compress(network, images, labels="none", **OPTIONS)
