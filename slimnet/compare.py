"""How well saliency metrics order channels, against the measured loss of removing each alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimnet import load, measure, report, saliency
from slimnet.errors import InputError
from slimnet.groups import Group, find_groups
from slimnet.groups.keep import keep_layers
from slimnet.records import Comparison, MeasuredGroup, OracleProgress, Split, Splits
from slimnet.search.full_oracle import FullOracle
from slimnet.search.layout import choose_layout, lay_out_each
from slimnet.search.metric_orders import order_by_each
from slimnet.search.state import State, first_state
from slimnet.search.unit_sample import places_among_all, places_by_group, sample_units
from slimnet.settings import Settings, settings_from

SCHEMA_VERSION = 1


def compare(
    model: str | Path | nn.Module,
    data: Any,
    *,
    sample: int | None = None,
    out: str | Path | None = None,
    task: measure.Task | str | Path | None = None,
    settings: Settings | Mapping[str, Any] | None = None,
    progress: Callable[[str | OracleProgress], None] | None = None,
    **dials: Any,
) -> Comparison:
    """Tell how well each saliency metric orders units, judged by the full oracle.

    It removes every unit of every group alone, and measures the change of the loss on the images
    that the metrics see too. The model handed in is not changed.

    Args:
        model: a module, or the path of a model file (see README, "Formats in and out").
        data: as for ``compress``. Metrics and oracle use calibration images only.
        sample: how many units to remove, drawn at random with the seed, evenly over the groups;
            None removes all of them.
        out: folder for compare.json and compare.svg; None writes nothing.
        task: as for ``compress``.
        settings: all dials at once; ``dials`` go on top. Without settings, ``repair`` is off. All
            metrics are compared unless ``metrics`` names some.
        progress: called with what is being done, in words, and with OracleProgress.
        **dials: any field of Settings, by name.

    Raises:
        InputError: the model, the data or a dial cannot be used, or nothing can be removed.
    """
    started, tell = time.perf_counter(), progress or (lambda _: None)
    dials |= {"task": task} if isinstance(task, (str, Path)) else {}
    settings = settings_from(settings, dials, Settings(repair=False))
    if sample is not None and (type(sample) is not int or sample < 2):
        raise InputError(f"sample is a whole number of units, 2 or more; got {sample!r}")
    if data is None:
        raise InputError('no data given: name it with --data, or as data = "..." in slimnet.toml')
    purpose = measure.choose_task(task, settings)
    saliency.require_metrics(settings.metrics or ())
    if out is not None:
        report.check_comparison_folder(Path(out))
    tell("loading")
    loaded = load.load_model(model, settings)
    splits = load.load_splits(data, settings, loaded.model, by_image=purpose.by_image)
    example = purpose.check(loaded.model, splits)
    before = purpose.measure(loaded.model, splits.selection, settings.confidence)
    purpose.require_worth(before, splits.selection)
    tell("finding groups")
    groups = _removable(loaded.model, example, settings)
    compared = _compare(loaded.model, groups, splits, sample, settings, purpose, tell)
    found = Comparison(
        schema_version=SCHEMA_VERSION,
        slimnet_version=version("slimnet"),
        source=loaded.source,
        source_sha256=loaded.sha256,
        data=splits.description,
        settings=settings.as_dict(),
        repaired=settings.repair,
        environment=report.environment(),
        seconds=time.perf_counter() - started,
        **compared,
    )
    if out is not None:
        report.save_comparison(found, Path(out))
    return found


def _compare(
    model: nn.Module,
    groups: Sequence[Group],
    splits: Splits,
    sample: int | None,
    settings: Settings,
    task: measure.Task,
    tell: Callable[[str | OracleProgress], None],
) -> dict[str, Any]:
    """Let the metrics and the oracle order the units; return the fields that say how they agree."""
    state, images, everything = _prepare(model, groups, splits.calibration, settings, task)
    loss = measure.mean_loss(state.model, images.batches, task)
    measure.require_finite_loss(loss, "calibration")
    tell("scoring by each metric")
    orders, state = order_by_each(state, images, everything, settings)
    if not orders.scores:
        reasons = "; ".join(f"{name}: {why}" for name, why in orders.left_out.items())
        raise InputError(f"no metric is left to compare: {reasons}")
    units = sample_units(groups, sample, settings.seed)
    tell("timing the first units")
    state = state if settings.repair else replace(state, moments={})
    oracle = FullOracle(state, images, settings.seed)
    expected = report.duration(oracle.expected_seconds(units))
    count, of = sum(map(len, units)), sum(group.units for group in groups)
    tell(f"removing {count:,} of {of:,} units alone, on {images.images:,} images: about {expected}")
    begun = time.perf_counter()
    removals = oracle.measure(units, tell)
    oracle_seconds = time.perf_counter() - begun
    tell("comparing the orders")
    reference = measure.Reference(removals.nats, places_by_group(groups, units), settings.seed)
    chosen = places_among_all(groups, units)
    return {
        "images": images.images,
        "loss_nats": loss,
        "units": of,
        "units_measured": count,
        "lowest": reference.k,
        "metrics": tuple(
            measure.metric_agreement(name, scores[chosen], reference, orders.seconds[name])
            for name, scores in orders.scores.items()
        ),
        "left_out": orders.left_out,
        "random": measure.random_agreement(reference),
        "oracle_halves": measure.agreement(*removals.halves),
        "groups": _measured(groups, units, removals.nats),
        "oracle_seconds": oracle_seconds,
    }


def _prepare(
    model: nn.Module,
    groups: Sequence[Group],
    calibration: Split,
    settings: Settings,
    task: measure.Task,
) -> tuple[State, Split, Split]:
    """Return a copy of the network, the oracle's images, and all that fit in memory."""
    layout = choose_layout(model, calibration, task)
    counts = (settings.oracle_images, calibration.images)
    images, everything = lay_out_each(calibration, counts, layout, task)
    form = layout.memory_format if layout else torch.contiguous_format
    state = first_state(model, groups, images, repair=False, memory_format=form, task=task)
    return state, images, everything


def _removable(model: nn.Module, example: Any, settings: Settings) -> list[Group]:
    """Return the groups, of which there must be some."""
    found, frozen = find_groups(model, example, layers=settings.layers, seed=settings.seed)
    found, _ = keep_layers(found, frozen, settings.keep)
    if sum(group.units for group in found) < 2:
        raise InputError(
            "no two units of this network can be removed, so there is no order to compare; "
            "slimnet inspect tells why, layer by layer"
        )
    return found


def _measured(
    groups: Sequence[Group], units: Sequence[Tensor], nats: Tensor
) -> Mapping[str, MeasuredGroup]:
    """Return what removing each unit did to the loss, group by group."""
    values = iter(value if math.isfinite(value) else None for value in nats.tolist())
    return {
        group.name: MeasuredGroup(
            layers=tuple(gate.layer for gate in group.gates),
            units=group.units,
            sensitivities_nats={unit: next(values) for unit in chosen.tolist()},
        )
        for group, chosen in zip(groups, units, strict=True)
    }
