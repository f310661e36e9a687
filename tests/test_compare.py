"""Comparing metrics from Python and from the command."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch.nn import functional

import slimnet
from slimnet import cli
from slimnet.groups.cut import mask
from slimnet.groups.find import find_groups
from slimnet.groups.group import plan_for
from slimnet.saliency.agreement import shared_lowest, spearman
from slimnet.saliency.metrics import GROUP_METRICS, METRICS
from slimnet.tasks.classification import mean_loss

ERROR = "slimnet: error: "
QUICK = ("taylor_second_order", "l1_weight")


@pytest.fixture
def files(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(trained[0], "model.pt")
    inputs, labels = map(torch.cat, zip(*trained[1].calibration.batches, strict=True))
    torch.save({"images": inputs, "labels": labels}, "data.pt")
    return tmp_path


def test_numbers_are_those_of_masks_and_the_definition(trained):
    model, splits = trained
    before = copy.deepcopy(model.state_dict())
    found = slimnet.compare(model, splits, metrics=QUICK)
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    loss = mean_loss(model, splits.calibration.batches)
    assert found.loss_nats == pytest.approx(loss)
    for group in groups:
        measured = found.groups[group.name]
        assert measured.layers == tuple(gate.layer for gate in group.gates)
        for unit in range(group.units):
            masked = copy.deepcopy(model)
            mask(masked, plan_for([group], [torch.tensor([unit])]))
            change = mean_loss(masked, splits.calibration.batches) - loss
            assert measured.sensitivities_nats[unit] == pytest.approx(change, abs=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("sample", [None, 9])
def test_a_metric_is_compared_on_the_units_that_were_measured(trained, sample):
    model, splits = trained
    found = slimnet.compare(model, splits, metrics=("l1_weight",), sample=sample)
    (l1,) = found.metrics
    every: list[list[float]] = [[], []]
    for name, group in found.groups.items():
        (layer,) = group.layers
        weights = model.get_submodule(layer).weight.detach().abs().flatten(1).sum(1)
        own = [[float(weights[unit]) for unit in group.sensitivities_nats],
               list(group.sensitivities_nats.values())]  # fmt: skip
        wanted = spearman(*map(torch.tensor, own))
        assert l1.layers[name].spearman == pytest.approx(wanted)
        every = [[*one, *more] for one, more in zip(every, own, strict=True)]
    scores, nats = map(torch.tensor, every)
    assert len(nats) == found.units_measured == (sample or 16)
    wanted = spearman(scores, nats)
    assert l1.overall.spearman == pytest.approx(wanted)
    wanted = 100 * shared_lowest(scores, nats, found.lowest)
    assert l1.lowest_shared_percent == pytest.approx(wanted)


def test_all_metrics_are_compared_without_repair(trained):
    model, splits = trained
    events = []
    found = slimnet.compare(model, splits, progress=events.append)
    assert found.groups == slimnet.compare(model, splits, metrics=QUICK).groups
    assert {one.metric for one in found.metrics} == {*METRICS, *GROUP_METRICS}
    assert (found.units, found.units_measured, found.lowest) == (16, 16, 2)
    assert not found.repaired
    assert found.settings["repair"] is False
    words = [event for event in events if isinstance(event, str)]
    assert words[0] == "loading"
    begun = events.index("removing 16 of 16 units alone, on 120 images")
    assert events[begun + 1].units == 16


def test_repaired_trials_and_a_sample(trained):
    model, splits = trained
    found = slimnet.compare(model, splits, sample=6, repair=True, metrics=QUICK, seed=3)
    whole = slimnet.compare(model, splits, repair=True, metrics=QUICK)
    plain = slimnet.compare(model, splits, metrics=QUICK)
    assert found.repaired
    assert found.units_measured == 6
    assert [len(group.sensitivities_nats) for group in found.groups.values()] == [3, 3]
    for name, group in found.groups.items():
        for unit, nats in group.sensitivities_nats.items():
            assert nats == whole.groups[name].sensitivities_nats[unit]
            assert nats != plain.groups[name].sensitivities_nats[unit]


def test_the_same_seed_gives_the_same_numbers(trained):
    model, splits = trained
    first, second = (slimnet.compare(model, splits, sample=8, metrics=QUICK) for _ in range(2))
    assert [one.overall for one in first.metrics] == [one.overall for one in second.metrics]
    assert first.groups == second.groups


def test_without_labels(trained):
    model, splits = trained
    inputs = torch.cat([batch[0] for batch in splits.calibration.batches])
    found = slimnet.compare(model, inputs_only(inputs), labels="none", metrics=QUICK)
    assert found.units_measured == 16
    assert found.metrics[0].overall.spearman is not None


def inputs_only(inputs):
    return torch.utils.data.TensorDataset(inputs)


def test_a_task_of_ones_own_leaves_out_what_needs_classes(trained):
    model, splits = trained
    inputs, labels = (
        torch.cat([b[i] for s in (splits.calibration, splits.selection) for b in s.batches])
        for i in range(2)
    )
    task = slimnet.Task(
        loss=lambda network, batch: functional.cross_entropy(network(batch[0]), batch[1]),
        score=lambda network, batches: (
            50 + float(sum(network(b[0]).tanh().mean() for b in batches))
        ),
    )
    found = slimnet.compare(
        model, torch.utils.data.TensorDataset(inputs, labels), task=task, batch_size=16,
        metrics=("mutual_information", *QUICK),
    )  # fmt: skip
    assert [one.metric for one in found.metrics] == [*QUICK]
    assert "class that the network gives" in found.left_out["mutual_information"]
    assert found.oracle_halves.spearman is not None
    with pytest.raises(slimnet.InputError, match="no metric is left to compare: mutual_info"):
        slimnet.compare(
            model, torch.utils.data.TensorDataset(inputs, labels), task=task,
            metrics=("mutual_information",),
        )  # fmt: skip


def test_command_prints_a_plain_table_in_a_pipe_and_writes_both_files(files, capsys):
    words = ["compare", "model.pt", "--data", "data.pt", "--out", "comparison", "--sample", "8"]
    assert cli.run([*words, "--metrics", "l1_weight,taylor_second_order"]) == 0
    printed = capsys.readouterr()
    for text in ("metric", "taylor_second_order", "oracle, half by half",
                 "8 of 16 units", "not repaired"):  # fmt: skip
        assert text in printed.out
    assert "─" not in printed.out
    assert "removing 8 of 16 units alone" in printed.err
    assert {path.name for path in (files / "comparison").iterdir()} == {
        "compare.json",
        "compare.svg",
    }


def test_json_is_one_document(files, capsys):
    words = ["compare", "model.pt", "--data", "data.pt", "--json", "--repair"]
    assert cli.run([*words, "--metrics", "l1_weight"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["repaired"] is True
    assert [one["metric"] for one in content["metrics"]] == ["l1_weight"]
    assert len(content["groups"]) == 2
    assert not [path for path in files.iterdir() if path.is_dir()]


def test_slimnet_toml_is_read_but_not_where_compress_writes(files, capsys):
    (files / "slimnet.toml").write_text(
        "model = 'model.pt'\ndata = 'data.pt'\nout = 'slim'\nmax_drop = 3\nmetrics = 'apoz'\n"
    )
    assert cli.run(["compare", "--json"]) == 0
    assert [one["metric"] for one in json.loads(capsys.readouterr().out)["metrics"]] == ["apoz"]
    assert not (files / "slim").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "no model given: slimnet compare model.pt"),
        ("model.pt", "no data given"),
        ("absent.pt --data data.pt", "there is no file"),
        ("model.pt --data data.pt --metrics tailor_first_order", "did you mean 'taylor_first"),
        ("model.pt --data data.pt --sample 1", "sample is a whole number of units, 2 or more"),
        ("model.pt --data data.pt --out model.pt", "the output must be a folder"),
        ("model.pt --data data.pt --max-drop 5", "--max-drop"),
        ("model.pt --data data.pt --keep *", "no two units"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, message, files, capsys):
    assert cli.run(["compare", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(ERROR)
    assert err.count("\n") == 1
    assert message in err


def test_an_interruption_promises_nothing(files, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(slimnet, "compare", interrupt)
    assert cli.run(["compare", "model.pt", "--data", "data.pt"]) == 130
    assert capsys.readouterr().err == f"{ERROR}interrupted\n"
