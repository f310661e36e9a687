"""The same run into the same folder does nothing again; anything else does."""

from __future__ import annotations

import json
import math
import shutil
import sys

import numpy
import pytest
import torch

import slimnet
from slimnet.cli.app import run
from slimnet.load import record_from_json
from slimnet.records.commands import Report
from slimnet.report.json_report import as_plain

OPTIONS = {"confidence": 0.5, "oracle_k": 2, "objective": "params", "latency_samples": 2,
         "latency_batch": (1,), "scale": 1.0}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unchanged")
    parts = [batch for part in (trained[1].selection, trained[1].test) for batch in part.batches]
    images, labels = (torch.cat(both).numpy() for both in zip(*parts, strict=True))
    torch.save(trained[0], folder / "model.pt")
    numpy.savez(folder / "data.npz", images=images, labels=labels)
    compress(folder)
    return folder


@pytest.fixture
def here(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return tmp_path


def compress(folder, **changes):
    return slimnet.compress(
        folder / "model.pt", folder / "data.npz", 20, out=folder / "slim", **{**OPTIONS, **changes}
    )


def test_an_unchanged_run_gives_the_earlier_result(here, monkeypatch):
    before = {path.name: path.read_bytes() for path in (here / "slim").iterdir()}
    monkeypatch.setattr(sys.modules["slimnet.compress"], "search_path", None)  # it would fail
    again = compress(here)
    assert again.earlier
    assert {path.name: path.read_bytes() for path in (here / "slim").iterdir()} == before
    told = json.loads(before["report.json"])
    assert as_plain(again.report) == told
    assert again.plan == slimnet.load_plan(here / "slim" / "plan.json")
    weights = sum(parameter.numel() for parameter in again.model.parameters())
    assert weights == told["slim_size"]["parameters"]
    assert not again.model.training


def other_dial(folder):
    return compress(folder, seed=1)


def without_the_cache(folder):
    return compress(folder, cache=False)


def other_model(folder):
    model = torch.load(folder / "model.pt", weights_only=False)
    with torch.no_grad():
        model[8].bias.add_(1e-3)
    torch.save(model, folder / "model.pt")
    return compress(folder)


def other_data(folder):
    held = dict(numpy.load(folder / "data.npz"))
    held["images"][0] += 1
    numpy.savez(folder / "data.npz", **held)
    return compress(folder)


def damaged_file(folder):
    (folder / "slim" / "slim.onnx").write_bytes(b"damaged")
    return compress(folder)


def other_report(folder):
    text = (folder / "slim" / "report.json").read_text()
    (folder / "slim" / "report.json").write_text(text.replace('"points": ', '"points": "x", "y": '))
    return compress(folder)


def other_machine(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slimnet.report.environment", lambda: {"cpu": "another"})
        return compress(folder)


class SearchedError(Exception):
    """The search has begun: the run is done again."""


def begin(*_, **__):
    raise SearchedError


@pytest.mark.parametrize(
    "change",
    [other_dial, without_the_cache, other_model, other_data, damaged_file, other_report,
     other_machine],
)  # fmt: skip
def test_whatever_changed_is_done_again(here, change, monkeypatch):
    monkeypatch.setattr(sys.modules["slimnet.compress"], "search_path", begin)
    with pytest.raises(SearchedError):
        change(here)


def test_what_was_done_again_is_the_earlier_result_then(here):
    assert not other_dial(here).earlier
    assert other_dial(here).earlier


def test_live_objects_are_never_taken_for_the_same(trained, tmp_path, monkeypatch):
    found = slimnet.compress(*trained, 20, out=tmp_path / "slim", **OPTIONS)
    assert not found.earlier
    assert found.report.run_sha256 is None
    monkeypatch.setattr(sys.modules["slimnet.compress"], "search_path", begin)
    with pytest.raises(SearchedError):
        slimnet.compress(*trained, 20, out=tmp_path / "slim", **OPTIONS)


def test_the_command_says_so(here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    words = ["compress", "model.pt", "--data", "data.npz", "--max-drop", "20", "--scale", "1",
             "--confidence", "0.5", "--oracle-k", "2", "--objective", "params",
             "--latency-samples", "2", "--latency-batch", "1"]  # fmt: skip
    assert run(words) == 0
    told = capsys.readouterr().out
    assert "Up to date: slim/ (--no-cache runs anew)" in told
    assert run([*words, "--no-cache"]) == 0
    assert "Written to slim/" in capsys.readouterr().out


def test_records_come_back_from_their_json(prepared):
    text = (prepared / "slim" / "report.json").read_text(encoding="utf-8")
    report, plain = record_from_json(Report, text), json.loads(text)
    assert as_plain(report) == plain
    assert isinstance(report.trajectory.steps, tuple)
    plain["trajectory"]["steps"][0]["candidates"][0]["sensitivity"] = None
    found = record_from_json(Report, json.dumps(plain))
    assert math.isnan(found.trajectory.steps[0].candidates[0].sensitivity)
    for broken in ({**plain, "notes": "x"}, {**plain, "source": 5}, {**plain, "seconds": None}):
        with pytest.raises(ValueError, match="Input should be"):
            record_from_json(Report, json.dumps(broken))
