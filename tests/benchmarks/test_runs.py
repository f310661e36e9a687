import json

import runs


def test_added_runs_are_read_again_and_are_done(tmp_path):
    file = tmp_path / "new" / "runs.json"
    assert runs.read_runs(file) == []
    assert runs.done(file, ("column", "seed")) == set()
    runs.add_run(file, {"column": "a", "seed": 0}, {"torch": "2"})
    runs.add_run(file, {"column": "a", "seed": 1}, {"torch": "2"})
    runs.add_run(file, {"column": "b", "seed": 0}, {"torch": "3"})
    assert runs.done(file, ("column", "seed")) == {("a", 0), ("a", 1), ("b", 0)}
    assert [run["environment"] for run in runs.read_runs(file)] == [0, 0, 1]
    assert json.loads(file.read_text())["environments"] == [{"torch": "2"}, {"torch": "3"}]
    assert [path.name for path in file.parent.iterdir()] == ["runs.json"]


def test_each_run_is_one_line_of_the_file(tmp_path):
    file = tmp_path / "runs.json"
    for seed in range(3):
        runs.add_run(file, {"seed": seed, "values": [1, 2]}, {})
    assert sum('"seed"' in line for line in file.read_text().splitlines()) == 3


def test_mean_and_spread():
    assert runs.mean_and_spread([]) == "–"
    assert runs.mean_and_spread([28.6]) == "29"
    assert runs.mean_and_spread([27, 29, 31]) == "29 ± 2"
    assert runs.mean_and_spread([1, 2], 1) == "1.5 ± 0.7"


def test_markdown_table():
    assert runs.markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
