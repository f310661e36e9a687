"""Blocks given back for others: which are tried, and that a search goes on through them."""

from __future__ import annotations

import copy

import torch

from slimnet.execution.running import MemoryBudget
from slimnet.groups.prove import prove_slim
from slimnet.options import Options
from slimnet.records.measured import Drop
from slimnet.records.search import Candidate, Step
from slimnet.search.candidates import ANY_WIDTH
from slimnet.search.exchange import propose_exchanges, start_of_exchanges
from slimnet.search.recovery import Recovery
from slimnet.search.search import search
from slimnet.search.state import first_state
from slimnet.search.widths import AllowedWidths

DROP = Drop(100, 99, 1, 1, 1, 0.5, 100)


def step(number, group, units, nats, *, taken_back=False, given_back=None):
    candidate = Candidate("apoz", {group: units}, nats, 10)
    return Step(
        number, (candidate,), 0, len(units), 0.0, 0.0, 1.0, DROP,
        not taken_back, taken_back, 0.1, (), given_back or {},
    )  # fmt: skip


def proposed(groups, steps, best_step, gone, worth, allowed=ANY_WIDTH):
    """Return what is proposed where a unit of group i is worth ``worth[i]``."""
    left = [
        torch.tensor([u for u in range(g.units) if u not in units])
        for g, units in zip(groups, gone, strict=True)
    ]

    def savings(proposals):
        return [
            sum(w * len(u) for w, u in zip(worth, p.units, strict=True)) for p in proposals
        ]  # fmt: skip

    return propose_exchanges(groups, left, steps, best_step, savings, allowed)


def test_the_last_block_of_another_group_is_given_back_for_one_that_did_not_fit(found):
    groups = found[2]
    steps = [
        step(1, "0", (1, 5), 0.1),
        step(2, "3", (2, 3), 0.1),
        step(3, "0", (0, 4), 0.2, taken_back=True),
        step(4, "0", (6, 7), 0.2),
        step(5, "3", (0, 7), 0.3, taken_back=True),
        step(6, "0", (0, 2), 0.9, taken_back=True),
    ]
    gone = [(1, 5, 6, 7), (2, 3)]
    (one,) = proposed(groups, steps, 4, gone, worth=(1, 2))
    assert (one.taken.channels, one.given_back.channels) == ({"3": (0, 7)}, {"0": (6, 7)})
    assert [units.tolist() for units in one.units] == [[1, 5], [0, 2, 3, 7]]
    (other,) = proposed(groups, steps, 4, gone, worth=(2, 1))
    assert [units.tolist() for units in other.units] == [[0, 1, 2, 5, 6, 7], []]
    assert proposed(groups, steps, 4, gone, worth=(1, 1)) == [], "nothing is saved by it"
    twos, fours = (AllowedWidths(multiple=number) for number in (2, 4))
    assert len(proposed(groups, steps, 4, gone, worth=(1, 2), allowed=twos)) == 1
    assert proposed(groups, steps, 4, gone, worth=(1, 2), allowed=fours) == [], "6 are left of 8"


def test_what_was_given_back_is_not_given_back_again(found):
    steps = [
        step(1, "0", (1, 5), 0.1),
        step(2, "3", (2, 3), 0.1, given_back={"0": (1, 5)}),
        step(3, "3", (0, 1), 0.2, taken_back=True),
    ]
    assert proposed(found[2], steps, 2, [(), (2, 3)], worth=(1, 9)) == []


def test_a_block_of_a_group_that_was_left_as_it_was_is_tried_again(found):
    """It broke the budget before the last step kept; that step was another group's."""
    steps = [
        step(1, "0", (1, 5), 0.1),
        step(2, "3", (2, 3), 0.2, taken_back=True),
        step(3, "0", (0, 4), 0.2),
    ]
    (one,) = proposed(found[2], steps, 3, [(0, 1, 4, 5), ()], worth=(1, 2))
    assert (one.taken.channels, one.given_back.channels) == ({"3": (2, 3)}, {"0": (0, 4)})
    assert one.taken.sensitivity == 0.2


def channels_left(state):
    return tuple(group.units for group in state.groups)


def test_a_search_that_is_stuck_goes_on_after_an_exchange(found, only_fits):
    """The first layer may lose channels only while the second is whole, and that is gone first."""
    model, splits, groups = copy.deepcopy(found[0]), *found[1:]
    with torch.no_grad():
        model[4].weight[[1, 6]] = 0
        model[4].bias[[1, 6]] = 0

    def fits(state):
        first, second = channels_left(state)
        return (second == 8 and first >= 4) or (first, second) == (8, 6)

    only_fits(fits)
    options = Options(max_drop=5, confidence=0.5, objective="macs", round_to=2)
    trajectory, slim = search(model, groups, splits, options)
    exchanged = [s for s in trajectory.steps if s.given_back and not s.taken_back]
    assert [(set(s.candidates[0].channels), set(s.given_back)) for s in exchanged] == [
        ({"0"}, {"3"})
    ]
    assert trajectory.kept_steps > exchanged[0].number, "and on from there"
    gone = {name: len(sides["out"]) for name, sides in trajectory.plan.items() if "out" in sides}
    assert gone == {"0": 4}
    kept = [s for s in trajectory.steps[: trajectory.kept_steps] if not s.taken_back]
    back = sum(len(units) for s in kept for units in s.given_back.values())
    assert sum(s.channels_removed for s in kept) - back == 4
    prove_slim(model, slim, trajectory.plan, splits.calibration.batches[0][0][:2])


def test_a_network_is_recovered_after_an_exchange_that_nothing_follows(
    found, only_fits, monkeypatch
):
    model, splits, groups = copy.deepcopy(found[0]), *found[1:]
    with torch.no_grad():
        model[4].weight[[1, 6]] = 0
        model[4].bias[[1, 6]] = 0
    recovered = []

    def at_the_end(self, best, number):
        recovered.append(channels_left(best.state))
        return best

    monkeypatch.setattr(Recovery, "at_the_end", at_the_end)
    only_fits(lambda state: channels_left(state) in [(8, 8), (8, 6), (6, 8)])
    options = Options(max_drop=5, confidence=0.5, objective="macs", round_to=2)
    search(model, groups, splits, options)
    assert recovered == [(8, 6), (6, 8)]


def test_nothing_is_kept_for_exchanges_beyond_the_memory_budget(found):
    model, splits, groups = found
    for memory, kept in ((MemoryBudget(), True), (MemoryBudget(100), False)):
        state = first_state(model, groups, splits.calibration, repair=True, memory=memory)
        assert (start_of_exchanges(state) is state) == kept
