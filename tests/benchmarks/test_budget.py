"""The runs and the table of the benchmark of the budget."""

from __future__ import annotations

from argparse import Namespace

import budget
import paper
import runs

LENET = paper.ROWS[0]


def test_a_run_holds_the_drops_on_both_splits(subject, tmp_path):
    options = Namespace(train=None, held_out="x.npz", oracle_images=60)
    run = budget.run_seed(LENET, 0, subject, options)
    assert run["selection_drop_points"] <= 5
    assert 0 <= run["conv_weights_removed_percent"] < 100
    runs.add_run(tmp_path / budget.FILE, run, {})
    table = budget.table(paper.ROWS, runs.read_runs(tmp_path / budget.FILE))
    assert table.count("LeNet-5, CIFAR-10 | 1 |") == 1


def test_the_table_counts_the_draws_beyond_the_budget():
    drops = {0: (1.0, 6.0), 1: (2.0, 5.0), 2: (3.0, 7.0)}
    found = [
        {"network": "lenet5", "dataset": "cifar10", "seed": seed,
         "conv_weights_removed_percent": 60.0 + seed,
         "selection_drop_points": own, "test_drop_points": other}
        for seed, (own, other) in drops.items()
    ]  # fmt: skip
    line = "| LeNet-5, CIFAR-10 | 3 | 61 ± 1 % | 2.0 ± 1.0 points | 6.0 ± 1.0 points | 2 |"
    table = budget.table(paper.ROWS, found)
    assert line in table
    assert table.endswith("The drop on the test images is 4.0 points larger in the mean.")


def test_a_row_without_weights_is_skipped_with_the_reason(tmp_path, capsys):
    budget.main(["--models", str(tmp_path), "--results", str(tmp_path), "--rows", "nin"])
    printed = capsys.readouterr()
    assert printed.err.startswith("NIN, CIFAR-10: skipped, no nin.pt in --models")
    assert "not known yet" in printed.out
