import sys

import paper
import pytest
import table3_figure

COLUMNS = ("mean_gradient", "taylor_first_order", "myopic_16")


def fake_run(column, seed):
    removed = [0.0, 10.0, 20.0 + seed]
    accuracy = [90.0 - seed, 88.0, 80.0]
    trajectory = {"conv_weights_removed_percent": removed, "accuracy_percent": accuracy}
    return {
        "network": "lenet5", "dataset": "cifar10", "column": column, "seed": seed,
        "trajectory": trajectory,
    }  # fmt: skip


def test_a_curve_is_the_mean_up_to_where_all_seeds_went():
    found = table3_figure.curve([fake_run("a", seed)["trajectory"] for seed in (0, 4)])
    assert (found["removed"][0], found["removed"][-1]) == (0, 20)
    assert (found["mean"][0], found["low"][0], found["high"][0]) == (88, 86, 90)
    assert found["mean"][-1] == pytest.approx((80 + 88 - 8 * 10 / 14) / 2, abs=0.01)


def test_the_figure_is_small_labelled_and_always_the_same(tmp_path):
    pytest.importorskip("matplotlib")
    found = [fake_run(column, seed) for column in COLUMNS for seed in (0, 1)]
    lines = list(table3_figure.draw_rows(paper.ROWS, found, tmp_path))
    (file,) = tmp_path.iterdir()
    assert lines == [f"{file.name}: {file.stat().st_size / 1000:.0f} kB"]
    text = file.read_text()
    assert len(text) < 100_000
    for label in ("convolution weights removed (%)", "accuracy on selection images (%)", "oracle"):
        assert label in text
    list(table3_figure.draw_rows(paper.ROWS, found, tmp_path))
    assert file.read_text() == text


def test_without_matplotlib_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match="needs matplotlib: pip install matplotlib"):
        list(table3_figure.draw_rows(paper.ROWS, [fake_run("mean_gradient", 0)], tmp_path))
