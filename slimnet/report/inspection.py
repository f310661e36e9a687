"""An inspection for a reader at a terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from slimnet.records import Frozen, GroupOffer, Inspection, Size
from slimnet.report.json_report import as_plain
from slimnet.report.numbers import change, count


def inspection_json(inspection: Inspection) -> str:
    """Return the inspection as one JSON document, without a line end; does not change it."""
    return json.dumps(as_plain(inspection), indent=1, allow_nan=False)


def inspection_parts(inspection: Inspection) -> list[Table | Text]:
    """Return what to print, in this order; does not change the inspection."""
    parts: list[Table | Text] = []
    if inspection.groups:
        parts.append(_groups_table(inspection.groups))
    if inspection.frozen:
        parts.append(_frozen_table(inspection.frozen))
    if inspection.groups:
        parts.append(_offer_table(inspection.size, inspection.smallest_size))
    return [*parts, *map(Text, _lines(inspection))]


def _groups_table(groups: Sequence[GroupOffer]) -> Table:
    """One row a layer; names break where they do not fit."""
    table = Table(caption="parameters, MACs: what goes with one unit", caption_justify="left")
    table.add_column("group", justify="right")
    table.add_column("layer", overflow="fold")
    for name in ("channels", "units", "parameters", "MACs"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, group in enumerate(groups, 1):
        prices = (round(group.parameters_per_unit), round(group.macs_per_unit))
        once = (str(number), *(count(value) for value in (group.units, *prices)))
        for layer, channels in group.layers.items():
            table.add_row(once[0], Text(layer), count(channels), *once[1:])
            once = ("", "", "", "")
    return table


def _frozen_table(frozen: Sequence[Frozen]) -> Table:
    table = Table()
    table.add_column("frozen layer", overflow="fold")
    table.add_column("channels", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for entry in frozen:
        table.add_row(Text(entry.layer), count(entry.channels), Text(entry.reason))
    return table


def _offer_table(now: Size, least: Size) -> Table:
    table = Table()
    table.add_column("what")
    for name in ("now", "one unit a group", "change"):
        table.add_column(name, justify="right")
    for name, before, after in (
        ("parameters", now.parameters, least.parameters),
        ("conv weights", now.conv_weights, least.conv_weights),
        ("MACs per input", now.macs, least.macs),
    ):
        table.add_row(name, count(before), count(after), change(before, after))
    return table


def _lines(inspection: Inspection) -> list[str]:
    shape = ",".join(map(str, inspection.input_shape))
    guessed = " (guessed; --input-shape gives another)" if inspection.input_shape_guessed else ""
    groups, frozen = len(inspection.groups), len(inspection.frozen)
    lines = [
        f"Input shape: {shape}{guessed}.",
        f"{inspection.prunable_channels:,} of {inspection.channels:,} channels "
        f"({inspection.prunable_channels_percent:.0f} %) can go, in {groups} "
        f"group{'' if groups == 1 else 's'}; {frozen} layer{' is' if frozen == 1 else 's are'} "
        "left whole.",
    ]
    return lines if groups else [lines[0], "Nothing can be removed from this network."]
