"""Report which channels of a network can be removed, without data and without changing it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimnet import data, load, report
from slimnet.errors import InputError
from slimnet.execution import measure_size, output_channels
from slimnet.groups import (
    Group,
    cut_out,
    find_branches,
    find_groups,
    keep_layers,
    plan_for,
    require_unchanged,
)
from slimnet.load import first_line
from slimnet.options import Options, options_from
from slimnet.records import BranchOffer, GroupOffer, Inputs, Inspection, Size
from slimnet.saliency import saved_parameters
from slimnet.search import Cost, macs_cost, saved_by, widths_of

SCHEMA_VERSION = 1


def inspect(
    model: str | Path | nn.Module,
    *,
    input_shape: Sequence[int] | Sequence[Sequence[int]] | None = None,
    options: Options | Mapping[str, Any] | None = None,
    **changes: Any,
) -> Inspection:
    """Report which channels can be removed from a network, and why the others cannot.

    The model handed in is not changed, no data is needed, and nothing is written.

    Args:
        model: a module, or the path of a model file (see README, "Formats in and out").
        input_shape: the shape of one input, such as (3, 224, 224), or one for each of several
            inputs; None guesses it.
        options: all options at once; ``changes`` go on top. Only arch, arch_arg, allow,
            trust_pickle, layers, keep and seed matter here.
        **changes: any field of Options, by name.

    Raises:
        InputError: the model cannot be used or traced, or its input shape cannot be guessed.
    """
    started = time.perf_counter()
    options = options_from(options, changes)
    loaded = load.load_model(model, options)
    example = data.made_up_inputs(loaded.model, input_shape, options.seed)
    require_unchanged(loaded, example)
    probing = data.smaller_inputs(loaded.model, example)
    found, frozen = find_groups(
        loaded.model, probing, layers=options.layers, seed=options.seed, full_size=example
    )
    found, frozen = keep_layers(found, frozen, options.keep)
    saved = [saved_parameters(group, loaded.model) for group in found]
    cost = macs_cost(loaded.model, example)
    offers = [
        _offer(group, loaded.model, parameters, cost)
        for group, parameters in zip(found, saved, strict=True)
    ]
    branches = _branch_offers(loaded.model, found, probing, cost, options)
    size = measure_size(loaded.model, example)
    smallest = _smallest_size(loaded.model, found, saved, example)
    channels = sum(output_channels(loaded.model).values())
    prunable = sum(offer.channels for offer in offers)
    return Inspection(
        schema_version=SCHEMA_VERSION,
        slimnet_version=version("slimnet"),
        source=loaded.source,
        source_sha256=loaded.sha256,
        input_shape=data.shapes_of(example),
        input_shape_guessed=input_shape is None,
        layers=options.layers,
        seed=options.seed,
        groups=tuple(offers),
        frozen=tuple(frozen),
        size=size,
        smallest_size=smallest,
        channels=channels,
        prunable_channels=prunable,
        prunable_channels_percent=_percent(prunable, channels),
        removable_parameters_percent=_gone(size.parameters, smallest.parameters),
        removable_conv_weights_percent=_gone(size.conv_weights, smallest.conv_weights),
        removable_macs_percent=_gone(size.macs, smallest.macs),
        environment=report.environment(),
        seconds=time.perf_counter() - started,
        branches=branches,
        keep=options.keep,
        notes=loaded.notes,
    )


def _offer(group: Group, model: nn.Module, parameters: Tensor, cost: Cost) -> GroupOffer:
    """Return what one unit saves: ``parameters`` (units,) go with each; ``cost`` is in MACs."""
    layers = _channels_of(group, model)
    return GroupOffer(
        layers=layers,
        channels=sum(layers.values()),
        units=group.units,
        parameters_per_unit=float(parameters.mean()),
        macs_per_unit=_mean_macs(group, model, parameters, cost),
    )


def _branch_offers(
    model: nn.Module, groups: Sequence[Group], example: Inputs, cost: Cost, options: Options
) -> tuple[BranchOffer, ...]:
    """Return the branches that can go, and after them those that cannot; ``cost`` is in MACs."""
    branches, needed = find_branches(model, groups, example, keep=options.keep, seed=options.seed)
    widths = widths_of(model)
    total = sum(cost(name, width) for name, width in widths.items())
    offers = [
        BranchOffer(
            name=branch.name,
            layers=branch.gone,
            constant=branch.constant,
            macs_percent=_percent(saved_by(branch.plan(groups), model, widths, cost), total),
        )
        for branch in branches
    ]
    return (*offers, *(BranchOffer(name, reason=reason) for name, reason in needed))


def _channels_of(group: Group, model: nn.Module) -> dict[str, int]:
    """Return how many output channels of each layer the group has, in model order."""
    whole = plan_for([group], [torch.arange(group.units)])
    outputs = {name: len(whole.get(name, {}).get("out", ())) for name in output_channels(model)}
    return {name: channels for name, channels in outputs.items() if channels}


def _mean_macs(group: Group, model: nn.Module, parameters: Tensor, cost: Cost) -> float:
    """Return the MACs that the removal of one unit saves, as a mean over the group's units.

    Units with the same number of ``parameters`` (units,) are alike: one of each kind is counted.
    """
    widths, total = widths_of(model), 0.0
    for value in torch.unique(parameters):
        alike = torch.nonzero(parameters == value).flatten()
        total += len(alike) * saved_by(plan_for([group], [alike[:1]]), model, widths, cost)
    return total / group.units


def _smallest_size(
    model: nn.Module, groups: Sequence[Group], saved: Sequence[Tensor], example: Inputs
) -> Size:
    """Return the size of a copy in which every group has only the units that must stay."""
    gone = []
    for group, parameters in zip(groups, saved, strict=True):
        kept = _must_stay(group, parameters)
        gone.append(torch.tensor([unit for unit in range(group.units) if unit not in kept]))
    try:
        return measure_size(model, example, partial(cut_out, plan=plan_for(groups, gone)))
    except Exception as error:  # the network's own code may fail with so few channels
        raise InputError(
            "the network does not run with one unit left in every group "
            f"({first_line(error)}); it cannot be inspected"
        ) from error


def _must_stay(group: Group, parameters: Tensor) -> set[int]:
    """Return the unit with the fewest ``parameters`` (units,), and one for each other layer."""
    kept = {int(parameters.argmin())}
    for member in group.members:
        if not kept.intersection(member.unit.tolist()):
            kept.add(int(member.unit[parameters[member.unit].argmin()]))
    return kept


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0


def _gone(before: int, after: int) -> float:
    return _percent(before - after, before)
