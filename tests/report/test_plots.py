"""Every figure: no raw markup in its text, and labels that a reader knows."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from slimnet.report import plots
from slimnet.report.commands import by_agreement

DRAWN = ("trajectory_plot", "layers_plot", "metrics_plot", "sensitivities_plot", "latency_plot")


@pytest.fixture
def long_report(report):
    """A report of a search over five decades of loss, forwards and back."""
    (first,) = report.trajectory.steps
    steps = [
        dataclasses.replace(
            first, number=number, taken_back=number == 4, parameters_removed_percent=9.0 * number,
            candidates=tuple(
                dataclasses.replace(first.candidates[0], metric=metric, sensitivity=nats)
                for metric, nats in (("apoz", -(10.0**number) / 1e4), ("l1_weight", math.inf),
                                     ("mean_gradient", 10.0**number / 1e3))
            ),
        )
        for number in range(1, 6)
    ]  # fmt: skip
    search = dataclasses.replace(report.trajectory, steps=tuple(steps), kept_steps=5)
    return dataclasses.replace(report, trajectory=search)


def texts_of(svg):
    elements = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(element.itertext()) for element in elements]


def all_plots(report, comparison):
    yield from (getattr(plots, name)(report) for name in DRAWN)
    yield plots.comparison_plot(comparison, by_agreement(comparison))


def test_no_figure_shows_raw_markup(long_report, report, comparison):
    for given in (long_report, report):
        for svg in all_plots(given, comparison):
            texts = texts_of(svg)
            assert len(texts) > 5
            assert not [t for t in texts if "$" in t or "\\" in t or "mathdefault" in t], texts


def test_a_logarithmic_axis_has_plain_numbers(long_report):
    texts = texts_of(plots.sensitivities_plot(long_report))
    assert {"−10", "−0.1", "0", "0.1", "10", "100"} <= set(texts)
    assert {"1", "2", "3", "4", "5"} <= set(texts), "whole steps"


def test_a_name_is_drawn_as_it_is(report):
    hostile = dataclasses.replace(report, channels_per_layer={"$\\frac{a}$<b>&": (4, 2)})
    assert "$\\frac{a}$<b>&" in texts_of(plots.layers_plot(hostile))


def test_importing_and_drawing_change_no_setting_of_matplotlib():
    code = (
        "import matplotlib; before = dict(matplotlib.rcParams)\n"
        "from slimnet.report import plots\n"
        "with plots._figure_as_svg(2) as (axes, svg): axes.plot([1, 2])\n"
        "assert svg().startswith('<svg')\n"
        "assert before == dict(matplotlib.rcParams)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
