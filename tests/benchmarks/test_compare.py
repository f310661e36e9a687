"""The table of comparisons, and the call that makes one."""

from __future__ import annotations

import json
from argparse import Namespace
from inspect import signature
from pathlib import Path

import compare
import paper

import slimnet


def test_a_comparison_is_summed_up_and_tabled(trained):
    model, splits = trained
    found = slimnet.compare(model, splits, metrics=("l1_weight", "taylor_second_order"))
    short = json.loads(json.dumps({"network": "small", **compare.summary(found)}, allow_nan=False))
    assert len(json.dumps(short, indent=1)) < 6_000
    (l1,) = (one for one in found.metrics if one.metric == "l1_weight")
    assert short["metrics"][0]["overall"]["spearman"] == round(l1.overall.spearman, 4)
    assert short["metrics"][0]["layers"].keys() == l1.layers.keys()
    assert "sensitivities_nats" not in json.dumps(short)
    rows = compare.table([short, short]).splitlines()
    assert rows[0] == "| metric | small, 16 channels | small, 16 channels |"
    assert {row.split(" | ")[0].strip("| ") for row in rows[2:4]} == {
        "l1_weight",
        "taylor_second_order",
    }
    assert f" {l1.lowest_shared_percent:.0f} % |" in next(r for r in rows if "l1_weight" in r)
    assert rows[4].startswith("| *oracle, half by half* | ")


def test_a_run_calls_the_library_with_options_that_it_has(trained, monkeypatch):
    found = slimnet.compare(*trained, metrics=("l1_weight",))
    known, calls = signature(slimnet.compare), []

    def compared(*given, **named):
        calls.append(known.bind(*given, **named).arguments)
        return found

    monkeypatch.setattr(compare.slimnet, "compare", compared)
    options = Namespace(
        models=Path("models"), train="train.npz", held_out="test.npz", oracle_images=60,
        seeds=[7], sample=5,
    )  # fmt: skip
    assert compare.run(paper.ROWS[0], options)["network"] == "lenet5"
    (call,) = calls
    assert call["model"] == Path("models/lenet5.pt")
    assert (call["sample"], call["options"].seed, call["options"].repair) == (5, 7, False)
