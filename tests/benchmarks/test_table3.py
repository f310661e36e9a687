from argparse import Namespace
from types import SimpleNamespace

import paper
import pytest
import runs
import table3
import table3_report
from table3_columns import COLUMNS, MYOPIC, SINGLE

from slimnet.options import Options

LENET, NIN = paper.ROWS[0], paper.ROWS[3]


def fake_run(row=LENET, column="myopic_5", seed=0, share=20.0, drop=3.0):
    return {
        "network": row.network, "dataset": row.dataset, "column": column, "seed": seed,
        "conv_weights_removed_percent": share, "test_drop_points": drop,
        "images": {"oracle": 512, "test": 60},
    }  # fmt: skip


def whole(row, single, **myopic):
    shares = dict.fromkeys(SINGLE, single - 4) | {"mean_gradient": single} | myopic
    return [
        fake_run(row, column, seed, share + 2 * seed)
        for column, share in shares.items()
        for seed in (0, 1)
    ]


def test_columns_are_the_papers_schemes_and_slimnets_own():
    assert len(COLUMNS) == 12
    for column in (*SINGLE.values(), *MYOPIC.values()):
        options = Options(**column.changes)
        assert (options.step, options.repair) == (1, False)
    assert all(len(Options(**column.changes).metrics) == 1 for column in SINGLE.values())
    assert Options(**COLUMNS["slimnet_latency"].changes) == Options()


def test_table_shows_mean_and_spread_of_each_row_that_has_runs():
    found = [fake_run(seed=0, share=19), fake_run(seed=1, share=21), fake_run(NIN, "full_oracle")]
    lines = table3_report.table(paper.ROWS, found).splitlines()
    assert lines[0].startswith("| network | weight² | activation | gradient | Taylor 1 | Taylor 2 ")
    assert lines[2:] == [
        "| LeNet-5, CIFAR-10 | – | – | – | – | – | 20 ± 1 | – | – | – | – | – | – | 29 ± 5 |",
        "| NIN, CIFAR-10 | – | – | – | – | – | – | – | – | – | 20 | – | – | 33 ± 6 |",
    ]


def test_claims_are_true_or_false_by_the_means():
    found = [
        *whole(LENET, 20, myopic_5=18, myopic_16=20.5),
        *whole(NIN, 30, myopic_5=25, myopic_16=29),
    ]
    text = table3_report.report((LENET, NIN), found)
    assert "| LeNet-5, CIFAR-10 | gradient | −2.0 ± 0.0 | – | – | +0.5 ± 0.0 | – | true |" in text
    assert "| NIN, CIFAR-10 | gradient | −5.0 ± 0.0 | – | – | −1.0 ± 0.0 | – | false |" in text
    assert (
        "over 2 seeds. LeNet-5, CIFAR-10; NIN, CIFAR-10: images 512 for oracle, 60 for test."
        in text
    )
    assert "True for 1 of 2 networks." in text
    assert "k = 16: +3.2 points (+2.5 to +4.0, 2)" in text
    assert "paper's scheme: 3.0 (3.0 to 3.0), above 5 in 0 of 28 runs" in text


def test_a_claim_stays_open_if_seeds_are_missing():
    found = whole(LENET, 20, myopic_16=25)
    assert "| – |" in table3_report.claims((LENET,), found[:-1]).splitlines()[-1]
    assert table3_report.claims((LENET,), found[1:]) == ""


def test_report_of_nothing_is_an_empty_table():
    assert len(table3_report.report(paper.ROWS, []).splitlines()) == 2


@pytest.fixture
def recorded(monkeypatch, subject):
    ran = []

    def run_column(row, column, seed, subject, options):
        ran.append((row.name, column, seed))
        return fake_run(row, column, seed) | {"seconds": 1.0}

    monkeypatch.setattr(table3, "run_column", run_column)
    monkeypatch.setattr(table3.paper, "load_subject", lambda row, options, seed: subject)
    return ran


def test_finished_runs_are_not_run_again(recorded, tmp_path, capsys):
    call = ["--rows", "lenet5", "--results", str(tmp_path), "--columns", "mean_gradient"]
    table3.main([*call, "--seeds", "0"])
    table3.main([*call, "myopic_5", "--seeds", "0", "1"])
    assert recorded == [
        ("lenet5", "mean_gradient", 0),
        ("lenet5", "myopic_5", 0),
        ("lenet5", "mean_gradient", 1),
        ("lenet5", "myopic_5", 1),
    ]
    assert "| 20 ± 0 |" in capsys.readouterr().out
    table3.main(["--table", "--results", str(tmp_path)])
    assert len(recorded) == 4


def test_full_oracle_only_where_it_is_small_or_asked_for(recorded, tmp_path, capsys):
    call = ["--rows", "lenet5", "--results", str(tmp_path), "--columns", "full_oracle"]
    table3.main([*call, "--seeds", "0", "--full-oracle-units", "15"])
    assert recorded == []
    assert "full oracle left out, 16 units" in capsys.readouterr().err
    table3.main([*call, "--seeds", "0"])
    assert recorded == [("lenet5", "full_oracle", 0)]


def test_a_row_without_weights_is_skipped_with_the_reason(tmp_path, capsys):
    table3.main(["--models", str(tmp_path), "--results", str(tmp_path), "--rows", "nin", "alexnet"])
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "NIN, CIFAR-10: skipped, no nin.pt in --models; benchmarks/train.py can train one",
        "AlexNet, CIFAR-10: skipped, no alexnet.pt in --models; benchmarks/train.py can train one",
    ]


def test_a_run_has_the_result_of_the_search(subject, tmp_path):
    options = Namespace(train=None, held_out="x.npz", oracle_images=60)
    run = table3.run_column(LENET, "myopic_5", 0, subject, options)
    removed = run["trajectory"]["conv_weights_removed_percent"]
    assert removed[0] == 0
    assert removed[run["steps"]] == pytest.approx(run["conv_weights_removed_percent"], abs=0.051)
    assert run["selection_drop_points"] <= 5
    assert run["images"] == {"calibration": 120, "selection": 60, "test": 60, "oracle": 40}
    runs.add_run(tmp_path / "runs.json", run, {})


def test_short_trajectory_leaves_out_undone_steps_and_those_evaluated_on_few_images():
    steps = [
        SimpleNamespace(
            conv_weights_removed_percent=float(number),
            drop=SimpleNamespace(slim_percent=90.0 - number, images=50 if number == 4 else 400),
            taken_back=number == 2,
        )
        for number in (1, 2, 3, 4)
    ]
    assert table3.short_trajectory(90.04, steps) == {
        "conv_weights_removed_percent": [0.0, 1.0, 3.0],
        "accuracy_percent": [90.0, 89.0, 87.0],
    }


def test_thinned_keeps_both_ends():
    assert table3.thinned(3, 100) == [0, 1, 2]
    chosen = table3.thinned(1000, 100)
    assert (len(chosen), chosen[0], chosen[-1]) == (100, 0, 999)
    assert chosen == sorted(set(chosen))
