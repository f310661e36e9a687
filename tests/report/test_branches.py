"""Branches that are gone, and rounds with several choices, in text, Markdown, page and figures."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

import slimnet
from slimnet.groups.branches import find_branches
from slimnet.groups.cut import slim_copy
from slimnet.groups.find import find_groups
from slimnet.records.commands import BranchResult
from slimnet.records.data import Split, Splits
from slimnet.records.search import Candidate
from slimnet.report import plots
from slimnet.report.build import branch_results
from slimnet.report.ci import markdown_summary
from slimnet.report.html import html_page
from slimnet.report.json_report import as_plain
from slimnet.report.summary import MAX_BRANCHES, branch_lines, summary_lines

NEEDED = BranchResult("stem", reason="the output needs it")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Conv2d(4, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return x + self.outer(self.inner(x).relu())


def with_branches(report, gone, stay=1):
    names = [f"block{number}.inner" for number in range(gone + stay)]
    branches = [
        BranchResult(name, (name,), (name.replace("inner", "outer"),), gone=number < gone)
        for number, name in enumerate(names)
    ]
    layers = {
        layer: (8, 0 if branch.gone and layer == branch.name else 8)
        for branch in branches
        for layer in (*branch.layers, *branch.constant)
    }
    return dataclasses.replace(report, branches=(*branches, NEEDED), channels_per_layer=layers)


def in_rounds(report):
    """A round: a choice of two, a larger one that replaces it, and one beyond the budget."""
    (step,) = report.trajectory.steps
    candidates = (
        Candidate("l1_weight", {"a": (0,)}, 2e-5, 16),
        Candidate("branch", {"b": (0, 1, 2), "c": (0,)}, 3e-5, 16),
        Candidate("l1_weight", {"d": (4, 5)}, 0.5, 16),
        Candidate("apoz", {"e": (7,)}, -1e-3, 16),
    )
    chosen = [((0, 1), True, True), ((0, 1, 2), True, False), ((0, 1, 2, 3), False, True)]
    steps = tuple(
        dataclasses.replace(
            step, number=number, candidates=candidates, chosen=numbers, within_budget=within,
            taken_back=back,
        )
        for number, (numbers, within, back) in enumerate(chosen, 1)
    )  # fmt: skip
    search = dataclasses.replace(report.trajectory, steps=steps, kept_steps=2)
    return dataclasses.replace(report, trajectory=search)


def texts_of(svg):
    elements = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(element.itertext()) for element in elements]


def test_a_branch_is_gone_if_its_layers_are():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Block(), Block(), nn.Conv2d(4, 2, 1)).eval()
    images = torch.randn(2, 3, 6, 6)
    groups, _ = find_groups(model, images)
    branches, needed = find_branches(model, groups, images)
    slim = slim_copy(model, branches[1].plan(groups))
    first, second, stem = branch_results(branches, needed, slim)
    assert (first.name, first.gone) == ("1.inner", False)
    assert second == BranchResult("2.inner", ("2.inner",), ("2.outer",), gone=True)
    assert (stem.name, stem.gone, stem.layers) == ("0", False, ())
    assert "no longer depends on the input" in stem.reason
    assert not any(one.gone for one in branch_results(branches, needed, model))


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        (1, "1 of 2 branches is gone: block0.inner."),
        (2, "2 of 3 branches are gone: block0.inner, block1.inner."),
        (MAX_BRANCHES, f"block{MAX_BRANCHES - 1}.inner."),
        (MAX_BRANCHES + 2, f"block{MAX_BRANCHES - 1}.inner and 2 more."),
    ],
)
def test_one_sentence_counts_and_names_the_branches(report, gone, sentence):
    found = with_branches(report, gone)
    (line,) = branch_lines(found)
    assert line.endswith(sentence)
    assert line in summary_lines(found)
    assert line.replace("_", r"\_") in markdown_summary(found)


def test_no_sentence_where_none_is_gone(report):
    for found in (report, with_branches(report, 0)):
        assert branch_lines(found) == []


def test_the_json_has_every_branch(report):
    plain = as_plain(with_branches(report, 1))["branches"]
    assert [(one["name"], one["gone"]) for one in plain] == [
        ("block0.inner", True), ("block1.inner", False), ("stem", False)
    ]  # fmt: skip
    assert plain[0]["constant"] == ["block0.outer"]
    assert plain[2]["reason"] == "the output needs it"


def test_the_page_names_gone_layers_and_branches(report):
    page = html_page(with_branches(report, 1)).replace(' class="short"', "")
    for row in (
        ("block0.inner", "8", "0", "gone"),
        ("block0.outer", "8", "8", "only its bias is left"),
        ("block1.inner", "8", "8", ""),
        ("block0.inner", "block0.inner", "block0.outer", "gone"),
        ("block1.inner", "block1.inner", "block1.outer", "stays"),
        ("stem", "", "", "cannot go: the output needs it"),
    ):
        assert "".join(f"<td>{cell}</td>" for cell in row) in page, row


def test_a_bar_of_no_channels_says_that_the_layer_is_gone(report):
    texts = texts_of(plots.layers_plot(with_branches(report, 2)))
    assert texts.count("gone") == 2
    assert texts.count("only its bias is left") == 2
    assert not {"gone", "only its bias is left"} & set(texts_of(plots.layers_plot(report)))


def test_every_choice_of_a_round_is_in_the_table_of_steps(report):
    page = html_page(in_rounds(report)).partition("Every step")[2].partition("<tbody>")[2]
    page = page.replace(' class="short"', "")
    for row, parts in zip(
        page.split("<tr>")[1:4],
        (
            ("l1_weight, branch", "a: 1; b: all 3; c: all 1", "+5e−05",
             "replaced by a larger choice"),
            ("l1_weight, branch", "a: 1; b: all 3; c: all 1; d: 2", "+0.5", "kept"),
            ("l1_weight, branch, apoz", "a: 1; b: all 3; c: all 1; d: 2; e: 1", "+0.499",
             "taken back"),
        ),
        strict=True,
    ):  # fmt: skip
        assert not [part for part in parts if f"<td>{part}</td>" not in row], row


def test_figures_show_only_what_is_gone_in_the_result(report):
    found = in_rounds(report)
    texts = texts_of(plots.metrics_plot(found))
    assert {"branch", "l1_weight"} <= set(texts)
    assert "apoz" not in texts, "its step was taken back"
    drawn = plots.metrics_plot(found)
    assert drawn.count('id="PathCollection_1"') == 1
    circles = drawn.partition('id="PathCollection_1"')[2].partition("</g>\n")[0]
    assert circles.count("<path") + circles.count("<use") == 2, "one circle for each metric"


@pytest.mark.parametrize(
    ("step", "quantity", "unit", "words"),
    [
        (None, "accuracy", "no unit", "It has no unit, and is no loss."),
        (1, "accuracy", "nats", "change of the mean loss when it goes (in nats)."),
        (1, "dice", "as the loss", "change of the mean loss when it goes."),
    ],
)
def test_a_sensitivity_has_the_unit_of_its_search(report, step, quantity, unit, words):
    drop = dataclasses.replace(report.selection_drop, quantity=quantity)
    settings = {**report.settings, "step": step}
    found = dataclasses.replace(in_rounds(report), settings=settings, selection_drop=drop)
    assert f"sensitivity ({unit})" in texts_of(plots.sensitivities_plot(found))
    page = html_page(found)
    assert f"summed sensitivity ({unit})" in page
    assert words in page
    assert ("nats" in page) == (unit == "nats")


def test_compress_reports_the_branch_that_it_took_out(residual, images):
    batches = [(20 * images, torch.zeros(6, dtype=torch.int64))] * 8
    data = [Split(name, 48, batches) for name in ("calibration", "selection", "test")]
    splits = Splits(*data, description="noise", classes=None, preprocessing={})
    options = {"objective": "macs", "confidence": 0.5, "labels": "none", "latency_batch": (1,),
               "latency_samples": 2, "layers": "all", "oracle_k": 1}  # fmt: skip
    result = slimnet.compress(residual, splits, 100, **options)
    found = {branch.name: branch for branch in result.report.branches}
    assert result.report.channels_per_layer["inner"][1] == 0
    assert (found["inner"].layers, found["inner"].gone) == (("inner",), True)
    assert found["stem"].reason
    assert "1 of 1 branches is gone: inner." in summary_lines(result.report)
