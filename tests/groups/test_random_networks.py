"""Random networks: each is right, or refused with a reason; none hangs."""

from __future__ import annotations

import signal

import pytest
import torch
from hypothesis import HealthCheck, event, given, note, settings
from random_networks import IMAGES, NETWORKS, network
from random_removal import (
    TOLERANCE,
    compare,
    random_units,
    require_complete,
    require_intact,
    training_error,
)

from slimnet.errors import InputError
from slimnet.groups.branches import find_branches
from slimnet.groups.cut import slim_copy
from slimnet.groups.find import find_groups
from slimnet.groups.group import plan_for, shrink_groups

SECONDS_EACH = 20.0  # of this process, so that other work on the machine counts nothing
THIRD = 1 / 3


class HangError(BaseException):
    """Nothing that expects common errors may swallow this."""


@pytest.fixture(scope="module")
def _raise_on_alarm():
    def hang(*_):
        raise HangError

    before = signal.signal(signal.SIGVTALRM, hang)
    yield
    signal.signal(signal.SIGVTALRM, before)


def judge(description, seed=0):
    """Return how it ended: "right", or the whole network's refusal."""
    torch.manual_seed(seed)
    model, example = network(*description), torch.randn(IMAGES)
    try:
        groups, frozen = find_groups(model, example, layers="all")
    except InputError as refusal:
        return f"refused: {str(refusal)[:60]}"
    require_complete(model, groups, frozen)
    # all at once, and every second one: what is right together may be wrong alone
    for chosen in (groups[::2], groups):
        plan = plan_for(chosen, random_units(chosen, THIRD, seed))
        assert compare(model, plan, example, seed).worst <= TOLERANCE, "masked is not slim"
    require_intact(model, plan)
    if not training_error(model, example):
        assert training_error(slim_copy(model, plan), example) == ""
    branches, needed = find_branches(model, groups, example)
    assert all(reason for _, reason in needed)
    for branch in branches:
        plan = branch.plan(groups)
        assert compare(model, plan, example, seed).worst <= TOLERANCE, "masked branch is not slim"
        require_intact(model, plan)
        units, smaller = branch.units(groups), shrink_groups(groups, branch.units(groups))
        if smaller:
            more = plan_for(smaller, random_units(smaller, THIRD, seed))
            slim = slim_copy(model, plan_for(groups, units))
            assert compare(slim, more, example, seed).worst <= TOLERANCE, "masked is not slim then"
    if branches:
        return "right, with branches"
    return "right" if groups else "right, nothing offered"


def judge_in_time(description):
    """Judge one network, and fail where that takes too long."""
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS_EACH)
    try:
        return judge(description)
    except HangError:
        raise AssertionError(f"no verdict after {SECONDS_EACH:g} s") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("_raise_on_alarm")
def test_every_network_is_right_or_refused(request):
    ends = []

    @settings(
        max_examples=request.config.getoption("--networks"),
        derandomize=True,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(NETWORKS)
    def check(description):
        note(f"network{description}")
        ends.append(judge_in_time(description))
        event(ends[-1])

    check()
    refused = [end for end in ends if end.startswith("refused")]
    assert len(refused) <= len(ends) // 20, f"{len(refused)} of {len(ends)} refused whole"
    whole = ends.count("right, with branches")
    assert whole > len(ends) // 10, "few networks have branches that can go"
    assert ends.count("right") + whole > len(ends) // 3, "few networks have groups"
