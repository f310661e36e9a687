"""The library call, end to end: each artefact is used as its reader would use it."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from torch import nn

import slimnet
from slimnet.export import tracing
from slimnet.groups import prove as proof
from slimnet.records.data import Split, Splits
from slimnet.report.json_report import report_schema
from slimnet.report.summary import summary_lines
from slimnet.tasks.confirmation import p_value

OPTIONS = {
    "confidence": 0.5,
    "oracle_k": 3,
    "step": 4,
    "latency_samples": 10,
    "latency_batch": (1,),
}
ARTEFACTS = [
    "original.onnx", "plan.json", "report.html", "report.json", "slim.onnx", "slim.pt2",
    "slim.safetensors",
]  # fmt: skip
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


class Network(nn.Module):
    """A class that no other process can know."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network(trained):
    return Network(copy.deepcopy(trained[0]))


@pytest.fixture(scope="module")
def splits(trained):
    """With so much noise on the held-out images that slimming costs accuracy."""
    return replace(trained[1], selection=noisy(trained[1].selection), test=noisy(trained[1].test))


def noisy(split):
    generator = torch.Generator().manual_seed(0)
    batches = [(x + 1.5 * torch.randn(x.shape, generator=generator), y) for x, y in split.batches]
    return replace(split, batches=batches)


@pytest.fixture(scope="module")
def live(network, splits, tmp_path_factory):
    """A live module with Splits, and what its state was before."""
    before = frozen_state(network)
    out = tmp_path_factory.mktemp("live") / "deep" / "slim"
    result = slimnet.compress(network, splits, 5, out=out, **OPTIONS)
    return result, out, before


@pytest.fixture(scope="module")
def files(live, trained, tmp_path_factory):
    """A pickled module with an .npz, into a folder that holds another run's result."""
    folder = tmp_path_factory.mktemp("files")
    model, splits = trained
    torch.save(model, folder / "model.pt")
    batches = [b for s in (splits.calibration, splits.selection, splits.test) for b in s.batches]
    np.savez(
        folder / "data.npz",
        images=torch.cat([images for images, _ in batches]).numpy(),
        labels=torch.cat([labels for _, labels in batches]).numpy(),
    )
    shutil.copytree(live[1], folder / "out")
    paths = (str(folder / "model.pt"), folder / "data.npz")
    events = []
    result = slimnet.compress(
        *paths, max_drop=5, out=str(folder / "out"), progress=events.append, **OPTIONS
    )
    return result, folder, events


def frozen_state(module):
    return {
        "values": {name: value.clone() for name, value in module.state_dict().items()},
        "flags": [(p.requires_grad, p.grad is None) for p in module.parameters()],
        "modes": [child.training for child in module.modules()],
        "kinds": [repr(child) for child in module.modules()],
        "hooks": [len(child._forward_hooks) for child in module.modules()],
    }


def same_state(one, other):
    values = one.pop("values"), other.pop("values")
    return one == other and all(torch.equal(values[0][k], values[1][k]) for k in values[0])


def run_onnx(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input": images.numpy()})[0])


def outputs(model, images):
    with torch.no_grad():
        return model(images)


def whole(split):
    images, labels = zip(*split.batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def report_of(out):
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


def test_something_was_removed_and_all_artefacts_are_there(live):
    result, out, _ = live
    assert sorted(entry.name for entry in out.iterdir()) == ARTEFACTS
    assert sorted(entry.name for entry in out.parent.iterdir()) == ["slim"]
    assert result.folder == out
    assert result.plan
    assert result.report.slim_size.conv_weights < result.report.original_size.conv_weights / 2


def test_the_model_handed_in_is_bit_identical(live, network):
    assert same_state(live[2], frozen_state(network))


@pytest.mark.parametrize("batch", [1, 5])
def test_slim_onnx_agrees_with_the_result(live, splits, batch):
    result, out, _ = live
    images = whole(splits.test)[0][:batch]
    torch.testing.assert_close(
        run_onnx(out / "slim.onnx", images), outputs(result.model, images), rtol=1e-4, atol=1e-4
    )


def test_original_onnx_is_the_network_that_was_handed_in(live, network, splits):
    images = whole(splits.test)[0]
    torch.testing.assert_close(
        run_onnx(live[1] / "original.onnx", images), outputs(network, images), rtol=1e-4, atol=1e-4
    )


def test_program_opens_where_nobody_knows_the_class(live, splits, tmp_path):
    result, out, _ = live
    images = whole(splits.test)[0][:5]
    torch.save(images, tmp_path / "images.pt")
    script = (
        "import sys, torch\n"
        f"program = torch.export.load({str(out / 'slim.pt2')!r}).module()\n"
        "torch.save(program(torch.load('images.pt')), 'scores.pt')\n"
        "assert not {'slimnet', 'torch_pruning', 'torchvision'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    torch.testing.assert_close(torch.load(tmp_path / "scores.pt"), outputs(result.model, images))


def test_plan_and_weights_replay_onto_a_fresh_network(live, network, splits):
    result, out, _ = live
    fresh = copy.deepcopy(network)
    for module in fresh.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    plan = slimnet.load_plan(out / "plan.json")
    assert plan == slimnet.load_plan(str(out / "plan.json")) == result.plan
    slimnet.apply_plan(fresh, plan)
    fresh.load_state_dict(safetensors.torch.load_file(out / "slim.safetensors"), strict=True)
    images = whole(splits.test)[0]
    assert torch.equal(outputs(fresh.eval(), images), outputs(result.model, images))


def test_report_tells_the_size_and_hash_of_every_file(live):
    out = live[1]
    report = report_of(out)
    for name in ("original", "slim"):
        content = (out / f"{name}.onnx").read_bytes()
        told = report["artefacts"][f"{name}_onnx"]
        assert told["bytes"] == len(content)
        assert told["sha256"] == hashlib.sha256(content).hexdigest()
        assert told["path"] == f"{name}.onnx"
        written = onnx.load_from_string(content)
        assert [told["opset"]] == [entry.version for entry in written.opset_import]
        notes = {entry.key: entry.value for entry in written.metadata_props}
        assert notes["plan_sha256"] == report["plan_sha256"]
        assert notes["drop_points"] == f"{report['selection_drop']['points']:.4f}"
    plan = json.loads((out / "plan.json").read_text())
    assert plan["plan_sha256"] == report["plan_sha256"]
    assert {*report["artefacts"]["sha256"], "report.html", "report.json"} == set(ARTEFACTS)
    for name, digest in report["artefacts"]["sha256"].items():
        assert digest == hashlib.sha256((out / name).read_bytes()).hexdigest()


def test_report_follows_the_schema_that_ships(live):
    jsonschema.validate(report_of(live[1]), report_schema(), jsonschema.Draft202012Validator)


def test_report_counts_what_the_weights_file_holds(live):
    weights = safetensors.torch.load_file(live[1] / "slim.safetensors")
    told = report_of(live[1])["slim_size"]
    parameters = [w for name, w in weights.items() if not name.endswith(BUFFERS)]
    assert told["parameters"] == sum(w.numel() for w in parameters)
    assert told["conv_weights"] == sum(w.numel() for w in parameters if w.ndim == 4)


def test_report_drop_is_that_of_the_files_on_the_test_split(live, splits):
    images, labels = whole(splits.test)
    told = report_of(live[1])["test_drop"]
    percent = [
        100 * (run_onnx(live[1] / f"{name}.onnx", images).argmax(1) == labels).double().mean()
        for name in ("original", "slim")
    ]
    assert told["original_percent"] == pytest.approx(float(percent[0]))
    assert told["slim_percent"] == pytest.approx(float(percent[1]))
    assert told["points"] == pytest.approx(float(percent[0] - percent[1]))
    assert told["points"] != 0
    assert told["images"] == len(labels)


def test_report_trajectory_and_plan_tell_the_same(live):
    report = report_of(live[1])
    kept = [
        step for step in report["trajectory"]["steps"][: report["trajectory"]["kept_steps"]]
        if not step["taken_back"]
    ]  # fmt: skip
    gone = sum(before - after for before, after in report["channels_per_layer"].values())
    assert gone == sum(step["channels_removed"] for step in kept)
    # a recovery after the last step may have lowered its drop
    recovered = bool(report["trajectory"]["finished_by"])
    last, final = kept[-1]["drop"]["points"], report["selection_drop"]["points"]
    assert 0 < final <= last <= 5
    assert recovered or final == last
    assert len(kept) < len(report["trajectory"]["steps"])
    left = dict(live[0].model.named_modules())
    for layer, (_, after) in report["channels_per_layer"].items():
        assert left[layer].weight.shape[0] == after


def test_from_files_the_result_is_used_the_same_way(files, splits):
    result, folder, events = files
    out = folder / "out"
    report = report_of(out)
    assert sorted(entry.name for entry in out.iterdir()) == ARTEFACTS
    digest = hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest()
    assert report["source_sha256"] == digest
    assert json.loads((out / "plan.json").read_text())["source_sha256"] == digest
    assert sum(report["data"]["images"].values()) == 240
    images = whole(splits.test)[0]
    torch.testing.assert_close(
        run_onnx(out / "slim.onnx", images), outputs(result.model, images), rtol=1e-4, atol=1e-4
    )
    assert [event for event in events if isinstance(event, str)] == list(result.report.seconds)
    steps = tuple(event for event in events if not isinstance(event, str))
    assert steps == result.report.trajectory.steps


def test_a_second_run_replaces_the_folder_whole(files, live):
    folder = files[1]
    assert sorted(entry.name for entry in folder.iterdir()) == ["data.npz", "model.pt", "out"]
    before, after = contents(live[1]), contents(folder / "out")
    assert before.keys() == after.keys()
    assert not [name for name in before if name != "plan.json" and before[name] == after[name]]


def test_without_out_nothing_is_written_and_the_seed_repeats_the_run_in_train_mode_too(
    live, network, splits, tmp_path, monkeypatch
):
    temporary, here = tmp_path / "temporary", tmp_path / "here"
    temporary.mkdir()
    here.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(here)
    model = copy.deepcopy(network).train()
    model.body[0].weight.requires_grad_(False)
    model.body[3].weight.grad = torch.ones_like(model.body[3].weight)
    before = frozen_state(model)
    again = slimnet.compress(model, splits, 5, **OPTIONS)
    assert same_state(before, frozen_state(model))
    assert again.folder is None
    assert contents(tmp_path) == {}
    assert list(temporary.iterdir()) == []
    first = live[0]
    assert again.plan == first.plan
    assert again.report.plan_sha256 == first.report.plan_sha256
    slim = (live[1] / "slim.onnx").read_bytes()
    assert again.report.artefacts.slim_onnx.sha256 == hashlib.sha256(slim).hexdigest()


@pytest.fixture(scope="module")
def nothing_free():
    """A network of two channels, each of which alone knows one of three classes."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3)
    ).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        model[3].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
        model[3].bias.copy_(torch.tensor([0.0, 0.0, 0.5]))
    labels = torch.arange(30) % 3
    images = torch.tensor([1.0, -1.0, 0.0])[labels].view(30, 1, 1, 1)
    parts = [Split(n, 30, [(images, labels)]) for n in ("calibration", "selection", "test")]
    return model, Splits(*parts, description="signs", classes=3, preprocessing={})


def test_budget_of_zero_and_nothing_free_is_bit_identical_and_says_why(nothing_free):
    model, splits = nothing_free
    result = slimnet.compress(model, splits, 0, **{**OPTIONS, "step": 1})
    images = torch.randn(50, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(outputs(result.model, images), outputs(model, images))
    report = result.report
    assert report.artefacts.slim_onnx.sha256 == report.artefacts.original_onnx.sha256
    assert result.plan == {}
    assert report.trajectory.steps  # it was tried
    assert report.trajectory.kept_steps == 0
    told = "\n".join(summary_lines(report))
    assert "Nothing was removed: " in told
    assert report.trajectory.stopped_because in told
    assert "  0 (2 channels): " in told
    assert "  3 (3 channels): " in told


def test_an_unprovable_budget_says_what_to_give(nothing_free):
    model, splits = nothing_free
    splits = replace(splits, confirmation=replace(splits.test, name="confirmation"))
    result = slimnet.compress(model, splits, 0, **{**OPTIONS, "confidence": 0.95})
    report = result.report
    assert result.plan == {}
    assert report.trajectory.steps == ()  # no hour is spent on what could not be shipped
    assert "give more images" in report.trajectory.stopped_because
    assert report.verdict == "missed"
    assert report.confirmation.impossible == report.trajectory.stopped_because
    assert (report.confirmation.tests, report.drop.points) == ((), 0)


def test_the_last_state_that_is_confirmed_on_other_images_is_shipped(confirmed, confirmable):
    """The report's test is that of the files on images that neither repair nor search has seen."""
    report, out = report_of(confirmed / "slim"), confirmed / "slim"
    images, labels = whole(confirmable.confirmation)
    original, slim = (
        run_onnx(out / f"{name}.onnx", images).argmax(1) == labels for name in ("original", "slim")
    )
    tests = report["confirmation"]["tests"]
    last = [test for test in tests if test["confirmed"]][-1]
    assert report["verdict"] == "confirmed"
    assert last["step"] == report["trajectory"]["kept_steps"] > 0
    assert last["drop"] == report["confirmation_drop"]
    lost, won = int((original & ~slim).sum()), int((~original & slim).sum())
    assert lost + won > 0
    assert last["drop"]["points"] == pytest.approx(100 * (lost - won) / len(labels))
    assert last["p_value"] == pytest.approx(p_value(lost, won, len(labels), 10))
    assert [test["confirmed"] for test in tests[:-1]] == [True] * (len(tests) - 1)
    removed = 1 - report["slim_size"]["parameters"] / report["original_size"]["parameters"]
    assert last["parameters_removed_percent"] == pytest.approx(100 * removed)
    drop = report["selection_drop"]
    assert drop["lower_points"] == drop["points"] == drop["upper_points"] <= 10
    notes = {e.key: e.value for e in onnx.load(out / "slim.onnx").metadata_props}
    assert notes["drop_points"] == f"{last['drop']['points']:.4f}"
    assert report["data"]["images"] == {"calibration": 120, "selection": 60, "confirmation": 240}


def test_the_confirmation_images_change_nothing_but_where_the_search_is_cut(
    trained, confirmable, monkeypatch
):
    """A run on other confirmation images finds the same states, and ships another of them."""
    black = [(torch.zeros_like(x), y) for x, y in confirmable.confirmation.batches]
    other = replace(confirmable.confirmation, batches=black)
    options = {**OPTIONS, "confidence": 0.95, "step": 2}
    monkeypatch.setattr("slimnet.tasks.classification.paired_p_value", lambda *_: 0.0)
    one, two = (
        slimnet.compress(trained[0], splits, 10, **options)
        for splits in (confirmable, replace(confirmable, confirmation=other))
    )
    assert one.plan == two.plan
    assert one.report.selection_drop == two.report.selection_drop
    assert len(one.report.confirmation.tests) > 1
    for found in (one, two):
        assert [test.selection_points for test in found.report.confirmation.tests] == [
            test.selection_points for test in one.report.confirmation.tests
        ]
    decided = iter([0.0, 0.01, 0.9])  # the first is that of the original, from itself
    monkeypatch.setattr("slimnet.tasks.classification.paired_p_value", lambda *_: next(decided))
    cut = slimnet.compress(trained[0], confirmable, 10, **options).report
    tests = one.report.confirmation.tests
    assert [test.confirmed for test in cut.confirmation.tests] == [True, False]
    assert [test.step for test in cut.confirmation.tests] == [test.step for test in tests[:2]]
    assert cut.confirmation_drop == cut.confirmation.tests[0].drop
    assert cut.slim_size.parameters > one.report.slim_size.parameters
    assert cut.verdict == "confirmed"


def mask_is_not_slim(monkeypatch):
    monkeypatch.setattr(proof, "TOLERANCE", -1.0)


def exported_weights_are_wrong(monkeypatch):
    whole_copy = tracing.evaluation_copy

    def corrupted(model):
        found = whole_copy(model)
        with torch.no_grad():
            next(found.parameters()).mul_(1.01)
        return found

    monkeypatch.setattr(tracing, "evaluation_copy", corrupted)


@pytest.mark.parametrize("break_it", [mask_is_not_slim, exported_weights_are_wrong])
def test_a_failed_proof_leaves_the_output_folder_untouched(
    live, nothing_free, tmp_path, monkeypatch, break_it
):
    shutil.copytree(live[1], tmp_path / "out")
    before = contents(tmp_path)
    break_it(monkeypatch)
    with pytest.raises(slimnet.ProofError):
        slimnet.compress(*nothing_free, 0, out=tmp_path / "out", **OPTIONS)
    assert contents(tmp_path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_bad_input_is_refused_before_anything_is_written(live, trained, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    model, splits = trained
    for changes, told in (
        ({"out": tmp_path / "out"}, "something else"),
        ({"oracle_kk": 3}, "did you mean 'oracle_k'"),
        ({"metrics": "tailor_first_order"}, "did you mean 'taylor_first_order'"),
        ({"data": None}, "no data given"),
        ({"max_drop": 101}, "0 to 100; got 101"),
    ):
        with pytest.raises(slimnet.InputError, match=told):
            slimnet.compress(**{"model": model, "data": splits, "max_drop": 5, **changes})
    assert list(contents(tmp_path)) == ["out/thesis.tex"]
