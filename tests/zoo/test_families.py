"""One small network of every torchvision family: what is offered is right, and it is much."""

from __future__ import annotations

import pytest
from random_removal import TOLERANCE, compare, require_complete, require_intact, training_error
from zoo_checks import (
    ONNX_TOLERANCE,
    onnx_error,
    program_error,
    random_plan,
    randomly_slimmed,
    require_replay,
)
from zoo_networks import FAMILIES, smallest

from slimnet.execution.layers import output_channels
from slimnet.export.onnx_file import translate
from slimnet.groups.cut import slim_copy
from slimnet.groups.find import find_groups
from slimnet.options import Options

# of all channels; transformers' and ConvNeXt's streams are held together by norms over channels
MIN_OFFERED = {"convnext": 0.4, "maxvit": 0.3, "swin": 0.3, "swin_v2": 0.3, "vit": 0.2,
                 "shufflenet": 0.3, "googlenet": 0.6}  # fmt: skip
USUALLY_OFFERED = 0.9
EXPORTED = ("shufflenet", "squeezenet", "vit")


# inception has the same heads for training only, and takes half as long
SLOW = ("googlenet",)
CHECKED = [pytest.param(family, marks=pytest.mark.slow_zoo) if family in SLOW else family
           for family in sorted(FAMILIES)]  # fmt: skip


@pytest.fixture(scope="module", params=CHECKED)
def found(request):
    model, example = smallest(request.param)
    return request.param, model, example, *find_groups(model, example, layers="all")


@pytest.mark.timeout(120)
def test_what_is_offered_is_right(found):
    _, model, example, groups, frozen = found
    require_complete(model, groups, frozen)
    plan = random_plan(groups)
    worst, changes_output = compare(model, plan, example)
    assert worst <= TOLERANCE
    assert changes_output
    require_intact(model, plan)
    if not training_error(model, example):
        assert training_error(slim_copy(model, plan), example) == ""


@pytest.mark.timeout(120)
def test_most_is_offered(found):
    family, model, _, groups, frozen = found
    channels = output_channels(model)
    offered = sum(channels[gate.layer] for group in groups for gate in group.gates)
    least = MIN_OFFERED.get(family, USUALLY_OFFERED)
    reasons = [f"{entry.layer}: {entry.reason}" for entry in frozen]
    assert offered >= least * sum(channels.values()), reasons


@pytest.mark.timeout(120)
@pytest.mark.parametrize("family", EXPORTED)
def test_artefacts_run_without_the_class(family, tmp_path):
    model, example = smallest(family)
    plan = random_plan(find_groups(model, example, layers="all")[0])
    slim = translate(randomly_slimmed(model, plan, example), example, Options.opset)
    assert onnx_error(slim, tmp_path) <= ONNX_TOLERANCE
    program_error(slim, tmp_path)


@pytest.mark.timeout(120)
def test_plan_and_weights_replay_on_a_fresh_network(found, tmp_path):
    family, model, example, groups, _ = found
    plan = random_plan(groups)
    slim = randomly_slimmed(model, plan, example)
    require_replay(lambda: smallest(family)[0], slim, plan, example, tmp_path)
