"""A finished folder, checked again: all checks hold, and every kind of tampering is found."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

import slimnet
from slimnet.cli.app import run
from slimnet.timing import RUNTIMES
from slimnet.timing.openvino import OpenVino
from slimnet.verify import verify

OPTIONS = {"confidence": 0.5, "oracle_k": 3, "objective": "params", "latency_samples": 3}
NAMES = [
    "files", "original.onnx", "slim.onnx", "plan", "figures", "model", "sizes", "plan on model",
    "drop", "test drop",
]  # fmt: skip


@pytest.fixture
def finished(compressed):
    return compressed


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished / "slim", tmp_path / "slim")
    return tmp_path / "slim"


def failing(folder, **given):
    return [check.name for check in verify(folder, **given).checks if not check.holds]


def test_a_fresh_result_holds(finished, trained):
    found = verify(finished / "slim", model=finished / "model.pt", data=trained[1])
    assert [check.name for check in found.checks] == NAMES
    assert found.holds, found


def test_the_result_of_a_live_module_holds_against_it_and_its_file(finished, trained, tmp_path):
    slimnet.compress(*trained, 20, out=tmp_path / "slim", latency_batch=(1,), **OPTIONS)
    for model in (trained[0], finished / "model.pt"):
        assert failing(tmp_path / "slim", model=model) == []
    assert failing(tmp_path / "slim", model=fresh()) == ["plan on model"]


@pytest.mark.parametrize("name", ["slim.onnx", "plan.json", "slim.safetensors", "slim.pt2"])
def test_a_changed_or_missing_file_is_seen(copied, name):
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "files" in failing(copied)
    (copied / name).unlink()
    assert "files" in failing(copied)


def test_other_weights_are_seen_even_where_the_hashes_were_forged(copied, finished):
    weights = load_file(copied / "slim.safetensors")
    weights["0.weight"] += 0.5
    save_file(weights, copied / "slim.safetensors")
    forge(copied, "slim.safetensors")
    assert failing(copied) == []
    assert failing(copied, model=finished / "model.pt") == ["plan on model"]


def forge(folder, name):
    """Put the file as it is now into the report."""
    report = json.loads((folder / "report.json").read_text())
    report["artefacts"]["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    if name.endswith(".onnx"):
        entry = name.replace(".", "_")
        report["artefacts"][entry]["bytes"] = (folder / name).stat().st_size
    (folder / "report.json").write_text(json.dumps(report))


def test_another_model_and_another_drop_are_seen(copied, finished, trained, tmp_path):
    other = torch.load(finished / "model.pt", weights_only=False)
    with torch.no_grad():
        other[0].weight += 0.5
    torch.save(other, tmp_path / "other.pt")
    assert "model" in failing(copied, model=tmp_path / "other.pt")
    report = json.loads((copied / "report.json").read_text())
    for name, seen in (("test_drop", ["test drop"]), ("selection_drop", ["drop", "test drop"])):
        report[name]["slim_percent"] -= 10
        report[name]["points"] += 10
        (copied / "report.json").write_text(json.dumps(report))
        assert failing(copied, data=trained[1]) == seen


@pytest.mark.parametrize(
    ("place", "name", "value", "seen"),
    [
        ("test_drop", "points", 0.125, "figures"),
        ("selection_drop", "slim_percent", 101.0, "figures"),
        ("slim_size", "parameters", 1, "sizes"),
        ("original_size", "macs", 1, "sizes"),
    ],
)
def test_figures_that_were_made_up_are_seen(copied, finished, place, name, value, seen):
    report = json.loads((copied / "report.json").read_text())
    report[place][name] = value
    (copied / "report.json").write_text(json.dumps(report))
    assert failing(copied, model=finished / "model.pt") == [seen]


def test_another_size_of_a_file_than_the_reports_is_seen(copied):
    report = json.loads((copied / "report.json").read_text())
    report["artefacts"]["slim_onnx"]["bytes"] -= 1
    (copied / "report.json").write_text(json.dumps(report))
    assert failing(copied) == ["figures"]


def test_a_report_may_not_name_code_to_run_or_files_elsewhere(copied, tmp_path):
    report = json.loads((copied / "report.json").read_text())
    report["settings"] |= {"preprocess": "evil.py:f", "trust_pickle": True, "arch": "evil.py:f"}
    report["artefacts"]["sha256"]["../elsewhere"] = "0"
    (copied / "report.json").write_text(json.dumps(report))
    (tmp_path / "elsewhere").write_text("")
    assert failing(copied) == ["files"]


def test_other_images_and_another_original_are_seen(copied, finished, trained):
    splits = trained[1]
    for name, seen in (("test", "test drop"), ("selection", "drop")):
        split = getattr(splits, name)
        black = [(torch.zeros_like(inputs), labels) for inputs, labels in split.batches]
        dark = dataclasses.replace(splits, **{name: dataclasses.replace(split, batches=black)})
        assert failing(copied, data=dark) == [seen]
    # the original of the folder is another network, though plan and weights are right
    shutil.copy(copied / "slim.onnx", copied / "original.onnx")
    forge(copied, "original.onnx")
    assert failing(copied, model=finished / "model.pt") == ["plan on model"]


def test_a_folder_made_without_labels_is_measured_again(finished, trained, tmp_path):
    changes = {**OPTIONS, "labels": "none", "latency_batch": (1,)}
    slimnet.compress(finished / "model.pt", trained[1], 20, out=tmp_path / "slim", **changes)
    found = verify(tmp_path / "slim", model=finished / "model.pt", data=trained[1])
    assert found.holds, found


def checks_of(folder, **given):
    return {check.name: check for check in verify(folder, **given).checks}


def test_a_confirmed_drop_is_tested_again(confirmed, confirmable):
    report = json.loads((confirmed / "slim" / "report.json").read_text())
    checks = checks_of(confirmed / "slim", model=confirmed / "model.pt", data=confirmable)
    assert list(checks) == [name for name in NAMES if name != "test drop"]
    assert all(check.holds for check in checks.values())
    p_value = next(test["p_value"] for test in reversed(report["confirmation"]["tests"])
                   if test["confirmed"])  # fmt: skip
    assert checks["drop"].seen.endswith(
        "on 240 confirmation images, as in the report; confirmed to be at most 10 points "
        f"(p = {p_value:.3f})"
    )


@pytest.fixture
def rewritten(confirmed, tmp_path):
    """Copies the confirmed folder and changes its report."""
    shutil.copytree(confirmed / "slim", tmp_path / "slim")
    report = json.loads((tmp_path / "slim" / "report.json").read_text())

    def rewrite(**changes):
        changed = {
            **report,
            **changes,
            "settings": report["settings"] | changes.get("settings", {}),
        }
        (tmp_path / "slim" / "report.json").write_text(json.dumps(changed))
        return tmp_path / "slim", report

    return rewrite


def test_a_budget_that_is_not_confirmed_is_seen_though_the_drop_is_right(rewritten, confirmable):
    """The verdict of a report is a claim: it is not believed, but tested."""
    folder, _ = rewritten(settings={"max_drop": 1.0})
    check = checks_of(folder, data=confirmable)["drop"]
    assert not check.holds
    assert "but that it is above 1 points cannot be ruled out at 95 % (p = 0." in check.seen
    folder, _ = rewritten()
    assert failing(folder, data=confirmable, max_drop=1.0) == ["drop"]
    assert failing(folder, data=confirmable) == []
    folder, _ = rewritten(settings={"max_drop": 1.0}, verdict="missed")
    assert failing(folder, data=confirmable) == []


def test_another_confirmed_drop_or_other_images_are_seen(rewritten, confirmable):
    folder, report = rewritten()
    drop = report["confirmation_drop"]
    forged = {**drop, "slim_percent": drop["slim_percent"] + 5, "points": drop["points"] - 5}
    folder, _ = rewritten(confirmation_drop=forged)
    assert failing(folder, data=confirmable) == ["drop"]
    forged = {**drop, "points": drop["points"] - 5}
    folder, _ = rewritten(confirmation_drop=forged)
    assert failing(folder) == ["figures"]
    folder, _ = rewritten(confirmation_drop=None)
    assert (
        "the report holds no drop of slim.onnx" in checks_of(folder, data=confirmable)["drop"].seen
    )
    folder, _ = rewritten()
    few = dataclasses.replace(confirmable.selection, name="confirmation")
    few = dataclasses.replace(confirmable, confirmation=few)
    check = checks_of(folder, data=few)["drop"]
    assert "these data have 60 confirmation images, those of the report 240" in check.seen
    with pytest.raises(slimnet.InputError, match="have no confirmation split"):
        verify(folder, data=dataclasses.replace(confirmable, confirmation=None))


def test_data_are_divided_as_in_the_run(confirmed, confirmable, trained, tmp_path):
    """Of a file, the images that confirmed are found again; test data are given again."""
    batches = [batch for split in confirmable.all for batch in split.batches]
    images, labels = (torch.cat(part).numpy() for part in zip(*batches, strict=True))
    numpy.savez(tmp_path / "data.npz", images=images, labels=labels)
    numpy.savez(tmp_path / "test.npz", images=images[:50], labels=labels[:50])
    slimnet.compress(
        trained[0], tmp_path / "data.npz", 10, out=tmp_path / "slim",
        test_data=str(tmp_path / "test.npz"), **{**OPTIONS, "confidence": 0.9, "seed": 3},
    )  # fmt: skip
    data = {"data": tmp_path / "data.npz", "test_data": str(tmp_path / "test.npz")}
    checks = checks_of(tmp_path / "slim", **data)
    assert all(check.holds for check in checks.values()), checks
    assert "210 confirmation images, as in the report; confirmed to be at" in checks["drop"].seen
    assert checks["test drop"].seen.endswith("on 50 test images, as in the report")
    assert "test drop" not in checks_of(tmp_path / "slim", data=tmp_path / "data.npz")


@pytest.mark.parametrize("content", [None, "", "[]", '{"schema_version": 99}', "{"])
def test_a_folder_without_a_readable_report_is_refused_in_one_line(tmp_path, content, capsys):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    assert run(["verify", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "schema version 2" in line or content is None


@pytest.mark.skipif(bool(RUNTIMES["openvino"].missing()), reason="openvino is not installed")
def test_the_runtime_that_a_folder_was_made_for_must_give_the_same_outputs(copied, monkeypatch):
    report = json.loads((copied / "report.json").read_text())
    report["settings"]["runtime"] = "openvino"
    (copied / "report.json").write_text(json.dumps(report))
    *others, check = verify(copied).checks
    assert [check.name for check in others] == NAMES[:5]
    assert check.name == "openvino"
    assert check.holds
    assert "give ONNX Runtime's outputs, to " in check.seen
    outputs = OpenVino.outputs
    monkeypatch.setattr(OpenVino, "outputs", lambda *args: [1.01 * x for x in outputs(*args)])
    assert failing(copied) == ["openvino"]
    monkeypatch.setattr(OpenVino, "missing", lambda runtime: ["its package"])
    *_, check = verify(copied).checks
    assert (check.holds, check.seen) == (True, "not run: this machine lacks its package")


def test_the_command_says_what_holds_and_ends_with_4_where_not(copied, capsys):
    assert run(["verify", str(copied)]) == 0
    assert "every check holds" in capsys.readouterr().out
    (copied / "slim.onnx").write_bytes(b"")
    assert run(["verify", str(copied)]) == 4
    printed = capsys.readouterr()
    assert "FAILS" in printed.out
    assert "files, slim.onnx" in printed.err


def test_the_slim_network_comes_back_on_a_fresh_one_and_on_no_other(finished, trained):
    slim = slimnet.load_slim(finished / "slim", fresh())
    expected = load_file(finished / "slim" / "slim.safetensors")
    assert all(torch.equal(value, expected[name]) for name, value in slim.state_dict().items())
    assert not slim.training
    other = torch.nn.Sequential(*fresh()[:8], torch.nn.Linear(32, 5))
    with pytest.raises(slimnet.InputError, match=r"other shapes|another network"):
        slimnet.load_slim(finished / "slim", other)
    with pytest.raises(slimnet.InputError, match="cannot read the weights"):
        slimnet.load_slim(finished, fresh())
    with pytest.raises(slimnet.InputError, match=r"a network .an instance.*; got Sequential"):
        slimnet.load_slim(finished / "slim", torch.nn.Sequential)
    with pytest.raises(slimnet.InputError, match=r"as slimnet.load_plan returns it"):
        slimnet.apply_plan(fresh(), finished / "slim" / "plan.json")


def fresh():
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4),
    ).eval()  # fmt: skip


def test_the_command_reads_the_working_folders_configuration(
    finished, tmp_path, monkeypatch, capsys
):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slimnet.toml").write_text('model = "model.pt"\nmax_drop = 20\n')
    assert run(["verify"]) == 0
    assert "plan on model" in capsys.readouterr().out
