"""Resting: candidates far too dear a few steps ago are not measured, and no winner is one."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from slimnet.groups import find_groups
from slimnet.records import Sensitivity
from slimnet.search.layout import Layout, lay_out
from slimnet.search.oracle import Oracle
from slimnet.search.proposals import propose_sets
from slimnet.search.ranking import rank
from slimnet.search.resting import LOSS_SHARE, MOST_STEPS, TIMES_DEARER, Resting, far_dearer
from slimnet.search.state import State

LOSS = 0.5
CHEAP = 0.01
DEAR = 2 * (TIMES_DEARER * CHEAP + LOSS_SHARE * LOSS)


@pytest.fixture
def state(trained):
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    return State(model, groups, {}, {})


def singles(state, units):
    """Propose these units, by their numbers in the original."""
    scores = torch.full((sum(group.units for group in state.groups),), 9.0)
    originals = torch.cat([group.original_units for group in state.groups[:1]])
    for place, unit in enumerate(units):
        scores[int((originals == unit).nonzero())] = place
    return propose_sets(state.groups, {"any": scores}, candidates=len(units), channels=1)


def without(state, unit):
    (one,) = singles(state, [unit])
    return state.without(one.units)


def noted(state, nats):
    resting = Resting()
    resting.begin(state)
    resting.note(singles(state, range(len(nats))), [Sensitivity(n, 100) for n in nats])
    return resting


def rests(resting, state, units=(0, 1, 2)):
    found = resting.too_dear(singles(state, units), [1.0] * len(units), LOSS)
    return {units[number] for number in found}


def test_what_was_far_dearer_rests_for_a_few_steps_and_is_measured_then(state):
    resting = noted(state, [CHEAP, DEAR, 2 * CHEAP])
    for step in range(MOST_STEPS):
        state = without(state, 7 - step)
        resting.begin(state)
        assert rests(resting, state) == {1}
        resting.note(singles(state, [1]), [Sensitivity(DEAR, 0)])
    resting.begin(without(state, 3))
    assert rests(resting, without(state, 3)) == set()


def test_units_are_told_apart_by_their_numbers_in_the_original(state):
    resting = noted(state, [CHEAP, CHEAP, DEAR])
    after = without(state, 1)
    resting.begin(after)
    assert rests(resting, after, [0, 2]) == {2}


def test_prices_are_compared_and_not_costs(state):
    resting = noted(state, [CHEAP, DEAR])
    after = without(state, 5)
    resting.begin(after)
    proposals = singles(after, [0, 1])
    assert resting.too_dear(proposals, [1.0, 1.0], LOSS) == {1: DEAR}
    assert resting.too_dear(proposals, [1.0, 10.0], LOSS) == {}


@pytest.mark.parametrize("following", ["the whole", "renewed", "after a set"])
def test_of_a_state_that_has_little_in_common_nothing_is_known(state, following):
    before = without(state, 6)
    resting = noted(before, [CHEAP, DEAR])
    after = without(before, 5)
    if following == "the whole":
        after = state
    elif following == "renewed":
        after = dataclasses.replace(after, renewals=1)
    else:
        pair = propose_sets(state.groups, {"any": torch.arange(16.0)}, candidates=1, channels=2)
        resting.note(pair, [Sensitivity(CHEAP, 100)])
    resting.begin(after)
    assert rests(resting, after, [0, 1]) == set()


@pytest.mark.parametrize(("lowest", "expected"), [(-0.1, True), (0.0, True), (DEAR, False)])
def test_gains_and_next_to_nothing(lowest, expected):
    assert far_dearer(DEAR, 1.0, lowest, LOSS) is expected
    assert not far_dearer(LOSS_SHARE * LOSS, 1.0, lowest, LOSS), "noise"
    assert not far_dearer(-DEAR, 1.0, lowest, LOSS)


def oracle_with(state, calibration, told):
    oracle = Oracle(state, calibration)
    oracle.begin(state)
    oracle.remember(singles(state, range(len(told))), [Sensitivity(n, 100) for n in told])
    return oracle


def test_the_oracle_wakes_what_rests_where_no_other_is_that_cheap(state, trained):
    calibration = lay_out(trained[1].calibration, layout=Layout(images=16))
    after = without(state, 7)
    losses = rank(after, calibration.batches, ["taylor_first_order"]).losses
    proposals, savings = singles(after, range(6)), [1.0] * 6
    expected, best = Oracle(after, calibration).measure(after, proposals, losses, savings)
    costs = [sensitivity.nats for sensitivity in expected]
    # all but the dearest are said to have cost what is dear beside 1e-4 nats, not beside that one
    dear = 2.9 * max(costs) + LOSS_SHARE * float(losses.mean())
    told = [1e-4 if cost == max(costs) else dear for cost in costs]
    oracle = oracle_with(state, calibration, told)
    oracle.begin(after)
    found, winner = oracle.measure(after, proposals, losses, savings)
    assert winner == best
    assert all(sensitivity.images for sensitivity in found)


def test_what_rests_is_told_with_what_it_cost_and_on_no_image(state, trained):
    calibration = lay_out(trained[1].calibration, layout=Layout(images=16))
    after = without(state, 7)
    losses = rank(after, calibration.batches, ["taylor_first_order"]).losses
    oracle = oracle_with(state, calibration, [1e-4, 1e3, 1e-4])
    oracle.begin(after)
    found, winner = oracle.measure(after, singles(after, range(3)), losses, [1.0] * 3)
    assert winner != 1
    assert found[1] == Sensitivity(1e3, 0)
    assert found[0].images
    assert found[2].images
