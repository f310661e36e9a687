"""The table of the README from comparisons."""

from __future__ import annotations

import json

import compare

import slimnet


def test_a_comparison_is_summed_up_and_tabled(trained):
    model, splits = trained
    found = slimnet.compare(model, splits, metrics=("l1_weight", "taylor_second_order"))
    told = json.loads(json.dumps({"network": "small", **compare.summary(found)}, allow_nan=False))
    assert len(json.dumps(told, indent=1)) < 6_000
    (l1,) = (one for one in found.metrics if one.metric == "l1_weight")
    assert told["metrics"][0]["overall"]["spearman"] == round(l1.overall.spearman, 4)
    assert told["metrics"][0]["layers"].keys() == l1.layers.keys()
    assert "sensitivities_nats" not in json.dumps(told)
    rows = compare.table([told, told]).splitlines()
    assert rows[0] == "| metric | small, 16 channels | small, 16 channels |"
    assert {row.split(" | ")[0].strip("| ") for row in rows[2:4]} == {
        "l1_weight",
        "taylor_second_order",
    }
    assert f" {l1.lowest_shared_percent:.0f} % |" in next(r for r in rows if "l1_weight" in r)
    assert rows[4].startswith("| *random order* | ")
    assert rows[5].startswith("| *oracle, half by half* | ")
