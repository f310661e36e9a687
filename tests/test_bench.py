"""Two networks timed in turns: what is timed, what is left out and why, and what is refused."""

from __future__ import annotations

import copy
import json
import math
import shutil

import pytest
import torch

import slimnet
from slimnet.cli.app import run
from slimnet.export.plan_file import save_plan
from slimnet.groups.cut import channels_of
from slimnet.timing.pytorch import PyTorch

PLAN = {"0": {"out": tuple(range(1, 8))}, "3": {"in": tuple(range(1, 8))}}
QUICK = {"latency_samples": 10, "latency_batch": (1, 3)}


@pytest.fixture(scope="module")
def written(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    save_plan(PLAN, folder / "plan.json", None, channels_of(trained[0], PLAN))
    torch.save(trained[0], folder / "model.pt")
    slimnet.apply(
        folder / "plan.json", folder / "model.pt", out=folder / "slim", input_shape=(1, 8, 8)
    )
    return folder


@pytest.fixture
def here(written, monkeypatch):
    monkeypatch.chdir(written)
    return written


def test_a_folder_compares_its_two_networks(here):
    found = slimnet.bench("slim", **QUICK)
    assert (found.original, found.slim) == ("slim/original.onnx", "slim/slim.onnx")
    assert [(e.runtime, e.threads, e.batch_size) for e in found.latency] == [
        ("onnxruntime-cpu", 1, 1), ("onnxruntime-cpu", 1, 3)
    ]  # fmt: skip
    assert all(len(entry.slim_samples_ms) == 10 for entry in found.latency)
    assert found.input_shapes == {"input": (None, 1, 8, 8)}
    assert (found.layers, found.skipped) == ((), ())


def test_files_and_folders_can_be_mixed_and_turned(here):
    found = slimnet.bench("slim", "slim/original.onnx", **QUICK)
    assert (found.original, found.slim) == ("slim/slim.onnx", "slim/original.onnx")


def test_pytorch_runs_what_the_model_and_the_folder_make(here, trained):
    threads = torch.get_num_threads()
    before = copy.deepcopy(trained[0].state_dict())
    found = slimnet.bench(
        "slim", runtimes=["torch-cpu", "ort-cpu"], model=trained[0], threads=2, **QUICK
    )
    assert [(e.runtime, e.threads) for e in found.latency] == [
        *[("torch-cpu", 2)] * 2, *[("onnxruntime-cpu", 2)] * 2
    ]  # fmt: skip
    assert torch.get_num_threads() == threads
    assert all(torch.equal(v, before[k]) for k, v in trained[0].state_dict().items())


def test_pytorch_opens_a_pt2_only_where_that_is_allowed(here):
    with pytest.raises(slimnet.InputError, match=r"slim\.pt2 can hold code .* --trust-pickle"):
        slimnet.bench("slim", "slim", runtimes=["torch-cpu"], **QUICK)
    found = slimnet.bench("slim", "slim", runtimes=["torch-cpu"], trust_pickle=True, **QUICK)
    assert [entry.runtime for entry in found.latency] == ["torch-cpu"] * 2


def test_the_slim_network_is_the_smaller_one_in_pytorch_too(here, trained, monkeypatch):
    seen, open_one = [], PyTorch.open

    def open_and_count(runtime, network, threads):
        seen.append(sum(p.numel() for p in network.module("cpu").parameters()))
        return open_one(runtime, network, threads)

    monkeypatch.setattr(PyTorch, "open", open_and_count)
    for changes in ({"model": trained[0]}, {"trust_pickle": True}):
        pair = ("slim",) if "model" in changes else ("slim", "slim")
        slimnet.bench(*pair, runtimes=["torch-cpu"], latency_samples=1, **changes)
    assert seen[0] > seen[1] == seen[2] == seen[3]


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_what_is_not_there_is_left_out_with_its_reason(here):
    found = slimnet.bench("slim", runtimes=["torch-cuda", "ort-cpu", "torch-cpu"], **QUICK)
    assert {entry.runtime for entry in found.latency} == {"onnxruntime-cpu"}
    reasons = {entry.what: entry.reason for entry in found.skipped}
    assert "a GPU that PyTorch sees" in reasons["torch-cuda"]
    assert "no PyTorch program of the original" in reasons["torch-cpu"]
    with pytest.raises(slimnet.InputError, match="nothing could be timed: torch-compile-cuda"):
        slimnet.bench("slim", runtimes=["torch-compile-cuda"], **QUICK)


def test_a_batch_size_that_the_files_do_not_take_is_left_out(here, monkeypatch):
    import onnx

    proto = onnx.load("slim/slim.onnx")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(proto, "three.onnx")
    found = slimnet.bench("slim/original.onnx", "three.onnx", **QUICK)
    assert [entry.batch_size for entry in found.latency] == [3]
    assert [entry.what for entry in found.skipped] == ["batch 1"]
    with pytest.raises(slimnet.InputError, match="of 3 images only: --batch 3"):
        slimnet.bench("slim/original.onnx", "three.onnx", latency_batch=8)


def test_a_file_that_does_not_run_is_bad_input_not_a_failed_proof(here, capsys):
    import onnx

    proto = onnx.load("slim/slim.onnx")
    proto.graph.node[0].domain = "nobody.knows"
    onnx.save(proto, "strange.onnx")
    assert run(["bench", "slim/original.onnx", "strange.onnx"]) == 2
    error = capsys.readouterr().err.strip()
    assert "cannot load strange.onnx" in error
    assert len(error.splitlines()) == 1


def test_json_is_one_document_and_holds_everything(here, capsys):
    words = "bench slim --batch 2 --samples 10 --profile --json --threads 2 --runtime ort-cpu"
    assert run(words.split()) == 0
    found = json.loads(capsys.readouterr().out)
    (entry,) = found["latency"]
    assert (entry["batch_size"], entry["threads"], len(entry["slim_samples_ms"])) == (2, 2, 10)
    layers = {layer["layer"]: layer for layer in found["layers"]}
    assert {"0", "3", "8"} <= layers.keys()
    assert math.isfinite(layers["3"]["original_ms"])
    assert found["schema_version"] == 1


def test_the_table_says_what_is_left_out_and_what_cannot_be_trusted(here, capsys):
    words = "bench slim --batch 1 --samples 2 --profile --runtime ort-cpu,torch-cpu"
    assert run(words.split()) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Left out: torch-cpu: slim holds no PyTorch program" in told
    assert "Warning: onnxruntime-cpu, batch 1: 2 timings of each network cannot tell" in told
    assert "Layers in onnxruntime-cpu, batch 1" in told


def test_what_is_not_given_comes_from_the_configuration(here, monkeypatch, tmp_path, capsys):
    shutil.copytree("slim", tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slimnet.toml").write_text("out = 'mine'\nlatency_batch = 2\nlatency-samples = 4")
    assert run(["bench", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["slim"] == "mine/slim.onnx"
    assert [(e["batch_size"], len(e["slim_samples_ms"])) for e in found["latency"]] == [(2, 4)]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("nowhere", "there is no file or folder nowhere"),
        ("slim nowhere.onnx", "there is no file or folder nowhere.onnx"),
        ("slim/slim.onnx", "two networks are compared; got slim/slim.onnx alone"),
        (".", "a folder that slimnet wrote holds original.onnx"),
        ("model.pt slim", "ONNX files and folders that slimnet wrote can be timed; got model.pt"),
        ("slim/original.onnx slim/slim.onnx --runtime torch-cpu", "PyTorch cannot run"),
        ("slim --runtime ort-gpu", "unknown runtime 'ort-gpu'; did you mean 'ort-c"),
        ("slim --batch 0", "1 or more; got 0"),
        ("slim --batch 999999999", "give a smaller --batch"),
        ("slim --samples 0", "1 or more; got 0"),
        ("slim --input-shape 1,9,9", "has the shape 1,8,8; got 1,9,9"),
        ("slim --input-shape a", "the input shape is that of one input"),
        ("slim --runtime torch-cpu --model absent.pt", "there is no file"),
    ],
)
def test_mistakes_end_in_one_line(here, capsys, words, told):
    assert run(["bench", *words.split()]) == 2
    error = capsys.readouterr().err.strip()
    assert told in error
    assert len(error.splitlines()) == 1
