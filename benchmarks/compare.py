"""How well does each saliency metric order the channels of the paper's networks?

Every run is ``slimnet.compare`` on the authors' weights. Each channel (of large networks a sample)
is removed alone, without repair, and the change of the loss is measured on training images. Each
network has one small JSON file; a network with a file is not run again:

    python benchmarks/compare.py --models MODELS --train TRAIN.npz --held-out TEST.npz \\
        --rows lenet5 cifar10net resnet20 --sample 200 --oracle-images 4096
    python benchmarks/compare.py --table
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import paper
from runs import markdown_table

import slimnet
from slimnet.records.search import Agreement, Comparison
from slimnet.report.json_report import as_plain
from slimnet.report.numbers import signed

DIGITS = 4


def run(row: paper.Row, options: argparse.Namespace) -> dict[str, Any]:
    """Compare all metrics on the network of a row."""
    run_options = paper.options_for(row, options, options.seeds[0], repair=False)
    found = slimnet.compare(
        options.models / f"{row.name}.pt",
        options.held_out,
        sample=options.sample,
        options=run_options,
        progress=lambda event: print(event) if isinstance(event, str) else None,
    )
    return {"network": row.network, "dataset": row.dataset, **summary(found)}


def summary(found: Comparison) -> dict[str, Any]:
    """Return a comparison without single channels, in few digits."""
    short: dict[str, Any] = as_plain(found)
    for name in ("source", "source_sha256", "data", "settings", "schema_version"):
        del short[name]
    short["seed"] = found.settings["seed"]
    short["groups"] = {
        name: {"layers": list(group.layers), "units": group.units,
               "units_measured": len(group.sensitivities_nats)}
        for name, group in found.groups.items()
    }  # fmt: skip
    for metric in short["metrics"]:
        metric["layers"] = {name: one["spearman"] for name, one in metric["layers"].items()}
    rounded: dict[str, Any] = _rounded(short)
    return rounded


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list) else value


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return a table with a row per metric, best mean first, and a column per network."""
    by_metric = [{one["metric"]: one for one in run["metrics"]} for run in found]
    names = sorted(
        set.intersection(*map(set, by_metric)),
        key=lambda name: sum(own[name]["overall"]["spearman"] or 0 for own in by_metric),
        reverse=True,
    )
    rows = [[name, *(_cell(own[name]) for own in by_metric)] for name in names]
    halves = [signed(Agreement(**r["oracle_halves"]).spearman) for r in found]
    header = ["metric", *(f"{r['network']}, {_units(r)}" for r in found)]
    return markdown_table(header, [*rows, ["*oracle, half by half*", *halves]])


def _cell(one: dict[str, Any]) -> str:
    """Return "0.86 · 0.80 · 46 %": overall, mean over layers, lowest shared."""
    return (
        f"{signed(one['overall']['spearman'])} · "
        f"{signed(one['layers_mean']['spearman'])} · {one['lowest_shared_percent']:.0f} %"
    )


def _units(run: dict[str, Any]) -> str:
    measured, units = run["units_measured"], run["units"]
    return f"{units} channels" if measured == units else f"{measured} of {units} channels"


def results(folder: Path, rows: Iterable[paper.Row]) -> dict[paper.Row, Path]:
    """Return the result file of each row."""
    return {row: folder / f"compare_{row.name}.json" for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    paper.add_options(parser)
    parser.add_argument("--sample", type=int, help="channels to remove; all, if not given")
    parser.add_argument("--table", action="store_true", help="only print the table")
    options = parser.parse_args()
    files = results(options.results, paper.chosen_rows(options))
    for row, file in files.items() if not options.table else ():
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(run(row, options), indent=1) + "\n", encoding="utf-8")
    print(table([json.loads(file.read_text()) for file in files.values() if file.exists()]))


if __name__ == "__main__":
    main()
