"""The tables of benchmarks/README.md and the README are those of the raw results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import compare
import growth
import guarantee
import paper
import paper_networks
import peers
import peers_report
import pytest
import runs
import search_speed
import table3
import table3_report
import zoo

ROOT = Path(__file__).parents[2]
TABLE = re.compile(r"(?:^\|.*\n?)+", re.MULTILINE)


def raw(name):
    return json.loads((paper.RESULTS / name).read_text(encoding="utf-8"))


def peer_runs():
    files = (peers.results_file(row, paper.RESULTS) for row in paper.ROWS)
    return [run for file in files for run in runs.read_runs(file)]


def comparisons():
    files = compare.results(paper.RESULTS, paper.ROWS).values()
    return [raw(file.name) for file in files if file.exists()]


def speeds():
    files = [paper.RESULTS / f"search_speed_{row.name}.json" for row in paper.ROWS]
    return [raw(file.name) for file in files if file.exists()]


PRINTED = {
    "paper_networks": lambda: paper_networks.table(raw("paper_networks.json")),
    "paper_networks_seeds": lambda: paper_networks.table(raw("paper_networks_seeds.json")),
    "paper_networks_avx2": lambda: paper_networks.table(raw("paper_networks_avx2.json")),
    "guarantee": lambda: guarantee.table(raw("guarantee.json")["runs"]),
    "table3": lambda: table3_report.report(paper.ROWS, table3.all_runs(paper.ROWS, paper.RESULTS)),
    "peers": lambda: peers_report.report(paper.ROWS, peer_runs()),
    "search_speed": lambda: search_speed.table(speeds()),
    "compare": lambda: compare.table(comparisons()),
    "growth": lambda: growth.table(raw("growth.json")["runs"]),
    "zoo": lambda: zoo.table(raw("zoo.json")["runs"]),
}


def tables_of(text):
    return [table.strip() for table in TABLE.findall(text)]


@pytest.mark.parametrize("name", PRINTED)
def test_the_page_has_the_printed_tables(name):
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    printed = tables_of(PRINTED[name]())
    assert printed
    for table in printed:
        assert table in tables_of(page)


def test_every_raw_result_has_a_table():
    own = {file.stem for file in paper.RESULTS.glob("*.json")}
    beside = {"memory", "search_speed_resnet20_avx2"}  # one sentence each
    named = {name for name in own if any(name.startswith(known) for known in PRINTED)}
    assert own == named | beside


def test_the_first_table_of_the_readme_repeats_the_raw_results():
    first = next(
        table
        for table in tables_of((ROOT / "README.md").read_text(encoding="utf-8"))
        if table.startswith("| network |")
    )
    header, _, *rows = (
        [c.strip() for c in line.strip("|").split("|")] for line in first.split("\n")
    )
    assert header[3] == "best of torch-pruning"
    assert len(rows) == 4
    latency = [run for run in raw("paper_networks.json") if run["mode"] == "latency"]
    lines = [paper_networks.table([run]).split("\n")[-1] for run in latency]
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in lines}
    best = {
        line[0]: line[2]
        for title, own in paper.by_title(paper.ROWS, peer_runs()).items()
        for line in ([title, *cells] for cells in peers_report.row_lines(own))
        if line[1].startswith("torch-pruning, best of")
    }
    titles = {row.name: row.title for row in paper.ROWS}
    for name, weights, papers, peer, *others in rows:
        key = name.lower().replace(" ", "").replace("-", "")
        assert cells[key][2:7] == [weights, papers, *others]
        assert best[titles[key]] == peer
