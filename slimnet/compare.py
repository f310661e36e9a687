"""How well saliency metrics order channels, against the measured loss of removing each alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from slimnet import load, report, saliency, tasks
from slimnet.data import load_splits
from slimnet.errors import InputError
from slimnet.execution import MemoryBudget, choose_layout, lay_out_each
from slimnet.groups import Group, find_groups, keep_layers, require_unchanged
from slimnet.options import Options, SaliencyOptions, options_from
from slimnet.records import Comparison, MeasuredGroup, OracleProgress, Split, Splits
from slimnet.search import (
    FullOracle,
    State,
    first_state,
    order_by_each,
    places_among_all,
    places_by_group,
    sample_units,
)

SCHEMA_VERSION = 1


def compare(
    model: str | Path | nn.Module,
    data: Any,
    *,
    sample: int | None = None,
    out: str | Path | None = None,
    task: tasks.Task | str | Path | None = None,
    options: Options | Mapping[str, Any] | None = None,
    progress: Callable[[str | OracleProgress], None] | None = None,
    **changes: Any,
) -> Comparison:
    """Return how well each saliency metric orders units, compared with the full oracle.

    The oracle removes every unit of every group alone, and measures the change of the loss on the
    images that the metrics see too. The model handed in is not changed.

    Args:
        model: a module, or the path of a model file (see README, "Formats in and out").
        data: as for ``compress``. Metrics and oracle use calibration images only.
        sample: how many units to remove, drawn at random with the seed, evenly over the groups;
            None removes all of them.
        out: folder for compare.json and compare.svg; None writes nothing.
        task: as for ``compress``.
        options: all options at once; ``changes`` go on top. Without them, ``repair`` is off. All
            metrics are compared unless ``metrics`` names some.
        progress: called with the stage in words, and with OracleProgress.
        **changes: any field of Options, by name.

    Raises:
        InputError: the model, the data or an option cannot be used, or nothing can be removed.
    """
    started, progress = time.perf_counter(), progress or (lambda _: None)
    changes |= {"task": task} if isinstance(task, (str, Path)) else {}
    options = options_from(options, changes, Options(repair=False))
    if sample is not None and (type(sample) is not int or sample < 2):
        raise InputError(f"sample is a whole number of units, 2 or more; got {sample!r}")
    if data is None:
        raise InputError('no data given: name it with --data, or as data = "..." in slimnet.toml')
    task = tasks.choose_task(task, options)
    saliency.require_metrics(options.metrics or ())
    if out is not None:
        report.check_comparison_folder(Path(out))
    progress("loading")
    loaded = load.load_model(model, options)
    splits = load_splits(data, options, loaded.model, by_image=task.by_image)
    example = task.check(loaded.model, splits)
    require_unchanged(loaded, example)
    before = task.measure(loaded.model, splits.selection, options.confidence)
    task.require_worth(before, splits.selection)
    progress("finding groups")
    groups = _removable(loaded.model, example, options)
    compared = _compare(loaded.model, groups, splits, sample, options, task, progress)
    found = Comparison(
        schema_version=SCHEMA_VERSION,
        slimnet_version=version("slimnet"),
        source=loaded.source,
        source_sha256=loaded.sha256,
        data=splits.description,
        settings=asdict(options),
        repaired=options.repair,
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
    options: SaliencyOptions,
    task: tasks.Task,
    progress: Callable[[str | OracleProgress], None],
) -> dict[str, Any]:
    """Return the fields of the record that say how the metrics' orders agree with the oracle's."""
    state, images, everything = _prepare(model, groups, splits.calibration, options, task)
    loss = tasks.mean_loss(state.model, images.batches, task)
    tasks.require_finite_loss(loss, "calibration")
    progress("scoring by each metric")
    orders, state = order_by_each(state, images, everything, options)
    if not orders.scores:
        reasons = "; ".join(f"{name}: {why}" for name, why in orders.left_out.items())
        raise InputError(f"no metric is left to compare: {reasons}")
    units = sample_units(groups, sample, options.seed)
    state = state if options.repair else replace(state, inverse_grams={})
    oracle = FullOracle(state, images, options.seed)
    count, of = sum(map(len, units)), sum(group.units for group in groups)
    progress(f"removing {count:,} of {of:,} units alone, on {images.images:,} images")
    begun = time.perf_counter()
    removals = oracle.measure(units, progress)
    oracle_seconds = time.perf_counter() - begun
    progress("comparing the orders")
    reference = saliency.Reference(removals.nats, places_by_group(groups, units))
    chosen = places_among_all(groups, units)
    return {
        "images": images.images,
        "loss_nats": loss,
        "units": of,
        "units_measured": count,
        "lowest": reference.k,
        "metrics": tuple(
            saliency.metric_agreement(name, scores[chosen], reference, orders.seconds[name])
            for name, scores in orders.scores.items()
        ),
        "left_out": orders.left_out,
        "oracle_halves": saliency.agreement(*removals.halves),
        "groups": _measured(groups, units, removals.nats),
        "oracle_seconds": oracle_seconds,
    }


def _prepare(
    model: nn.Module,
    groups: Sequence[Group],
    calibration: Split,
    options: SaliencyOptions,
    task: tasks.Task,
) -> tuple[State, Split, Split]:
    """Return a copy of the network, the oracle's images, and all that fit in memory."""
    layout = choose_layout(model, calibration, task)
    counts = (options.oracle_images, calibration.images)
    images, everything = lay_out_each(calibration, counts, layout, task, options.memory_bytes)
    state = first_state(
        model,
        groups,
        images,
        repair=False,
        memory_format=layout.memory_format,
        task=task,
        memory=MemoryBudget(options.memory_bytes),
    )
    return state, images, everything


def _removable(model: nn.Module, example: Any, options: SaliencyOptions) -> list[Group]:
    """Return the groups.

    Raises:
        InputError: fewer than two units can be removed.
    """
    found, frozen = find_groups(model, example, layers=options.layers, seed=options.seed)
    found, _ = keep_layers(found, frozen, options.keep)
    if sum(group.units for group in found) < 2:
        raise InputError(
            "no two units of this network can be removed, so there is no order to compare; "
            "slimnet inspect shows why, layer by layer"
        )
    return found


def _measured(
    groups: Sequence[Group], units: Sequence[Tensor], nats: Tensor
) -> Mapping[str, MeasuredGroup]:
    """Return the change of the loss when each unit is removed, group by group."""
    values = iter(value if math.isfinite(value) else None for value in nats.tolist())
    return {
        group.name: MeasuredGroup(
            layers=tuple(gate.layer for gate in group.gates),
            units=group.units,
            sensitivities_nats={unit: next(values) for unit in chosen.tolist()},
        )
        for group, chosen in zip(groups, units, strict=True)
    }
