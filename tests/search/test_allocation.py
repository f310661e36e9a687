"""The combination of choices that saves most, against trying them all."""

import random
from itertools import combinations

import pytest
import torch

from slimnet.search.allocation import MAX_RATIO, Choice, select
from slimnet.search.candidates import Proposal
from slimnet.search.latency_table import Width

LAYERS = {"a": Width(3, 8), "b": Width(8, 8), "c": Width(8, 4), "d": Width(4, 10)}
GROUPS = 3


def cost_of(layer: str, inputs: int, outputs: int) -> float:
    if not layer:
        return sum(float(w.inputs * w.outputs) for w in LAYERS.values())
    width = LAYERS[layer]
    return float((width.inputs - inputs) * (width.outputs - outputs))


def choice(group: int, units: int, nats: float, number: int) -> Choice:
    gone = [torch.arange(units if g == group else 0) for g in range(GROUPS)]
    return Choice(Proposal("any", tuple(gone)), nats, number)


def table(seed: int) -> tuple[list[Choice], list[dict[str, Width]]]:
    """Several widths of three groups, each of which two layers of a chain share."""
    random.seed(seed)
    chain, choices, effects = ["a", "b", "c", "d"], [], []
    for group in range(GROUPS):
        nats = 0.0
        for units in (1, 2, 3):
            nats += random.random() * units
            choices.append(choice(group, units, nats, len(choices)))
            reads, puts_out = chain[group + 1], chain[group]
            effects.append({puts_out: Width(0, units), reads: Width(units, 0)})
    return choices, effects


def saved(effects, chosen) -> float:
    gone = {name: [0, 0] for name in LAYERS}
    for number in chosen:
        for name, less in effects[number].items():
            gone[name][0] += less.inputs
            gone[name][1] += less.outputs
    return sum(cost_of(name, 0, 0) - cost_of(name, *less) for name, less in gone.items())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("max_nats", [1.0, 2.0, 4.0])
def test_hardly_any_combination_that_is_allowed_saves_more(seed, max_nats):
    choices, effects = table(seed)
    found = select(choices, effects, cost_of, max_nats)
    numbers = [one.number for one in found.choices]
    assert found.saved == pytest.approx(saved(effects, numbers))
    assert found.nats <= max_nats
    assert found.nats == pytest.approx(sum(one.nats for one in found.choices))
    groups = [g for one in found.choices for g in one.groups]
    assert len(set(groups)) == len(groups)
    for many in range(1, GROUPS + 1):
        for chosen in combinations(range(len(choices)), many):
            groups = [g for n in chosen for g in choices[n].groups]
            nats = sum(choices[n].nats for n in chosen)
            more = saved(effects, chosen) - found.saved
            dear = (nats - found.nats) * found.saved > MAX_RATIO * found.nats * more
            if len(set(groups)) == many and nats <= max_nats and not dear:
                assert more <= 0.4 * found.saved


def test_what_costs_nothing_goes_and_what_saves_nothing_stays():
    choices = [choice(0, 2, -0.1, 0), choice(1, 2, 0.0, 1), choice(2, 2, 0.0, 2)]
    effects = [{"a": Width(0, 2)}, {"b": Width(0, 2)}, {}]
    found = select(choices, effects, cost_of, 1e9)
    assert [one.number for one in found.choices] == [0, 1]


def test_a_branch_takes_the_place_of_the_widths_of_all_its_groups():
    both = [torch.arange(8), torch.arange(8), torch.arange(0)]
    choices = [
        choice(0, 3, 0.1, 0), choice(1, 3, 0.1, 1), Choice(Proposal("branch", tuple(both)), 0.9, 2),
    ]  # fmt: skip
    effects = [
        {"a": Width(0, 3), "b": Width(3, 0)}, {"b": Width(0, 3), "c": Width(3, 0)},
        {"a": Width(0, 8), "b": Width(8, 8), "c": Width(8, 0)},
    ]  # fmt: skip
    for max_nats, expected in ((0.25, [0, 1]), (0.9, [2]), (1e9, [2])):
        found = select(choices, effects, cost_of, max_nats)
        assert [one.number for one in found.choices] == expected


def test_nothing_is_chosen_where_everything_costs_more():
    choices, effects = table(0)
    assert select(choices, effects, cost_of, min(c.nats for c in choices) / 2).choices == ()
