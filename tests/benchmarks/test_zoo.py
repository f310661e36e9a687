import json
import sys

import pytest
import zoo
from zoo_networks import NETWORKS

ROW = {
    "network": "vgg11", "channels_percent": 99.4, "parameters_percent": 80.0,
    "macs_percent": 70.5, "seconds": 1.6, "onnx_error": 1e-6,
    "frozen": [["a.0", 8, "LayerNorm a.1 mixes channels"], ["b", 4, "unseen"],
               ["a.2", 8, "LayerNorm a.3 mixes channels"]],
}  # fmt: skip


def test_table_counts_frozen_layers_by_reason():
    failed = {"network": "resnet18", "error": "no result after 2 s"}
    rows = zoo.table([ROW, failed]).splitlines()[2:]
    assert rows == [
        "| resnet18 | – | – | – | no result after 2 s | – |",
        "| vgg11 | 99.4 % | 80.0 % | 70.5 % | 2 × LayerNorm mixes channels; 1 × unseen | 2 |",
    ]


def test_each_network_has_a_process_a_limit_and_a_line(tmp_path, monkeypatch, capsys):
    file = tmp_path / "zoo.json"
    asked = []
    monkeypatch.setattr(zoo, "run_apart", lambda name, limit: asked.append((name, limit)) or ROW)
    for names in (["vgg11"], ["vgg11", "vgg13"]):
        command = ["zoo.py", "--seconds", "9", "--results", str(file), "--networks", *names]
        monkeypatch.setattr(sys, "argv", command)
        monkeypatch.setitem(ROW, "network", names[-1])
        zoo.main()
    assert asked == [("vgg11", 9.0), ("vgg13", 9.0)]
    assert len(json.loads(file.read_text())["runs"]) == 2
    assert "| vgg13 |" in capsys.readouterr().out


def test_an_error_in_the_process_becomes_the_row():
    assert zoo.run_apart("resnet18", 0.01) == {"error": "no result after 0.01 s"}


def test_at_least_45_networks_of_every_family():
    assert len(set(NETWORKS)) == len(NETWORKS) >= 45


@pytest.mark.parametrize("error", ["ProofError: they differ"])
def test_last_line_of_an_error_is_kept(error, monkeypatch, tmp_path):
    script = tmp_path / "fails.py"
    script.write_text(f"import sys; print('Traceback', file=sys.stderr); sys.exit({error!r})")
    monkeypatch.setattr(zoo, "__file__", str(script))
    assert zoo.run_apart("vgg11", 60) == {"error": error}


def test_a_row_beyond_the_bar_of_onnx_says_so():
    near, far = (zoo.table([{**ROW, "onnx_error": error}])
                 for error in (1e-5, 1.1e-5))  # fmt: skip
    assert "off" not in near
    assert "| ONNX Runtime 1.1e-05 off; " in far
