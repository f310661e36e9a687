"""The proof that a slim network computes what the masked one does, in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from slimnet.errors import InputError, ProofError
from slimnet.groups.mask import mask
from slimnet.groups.slim import slim_copy
from slimnet.load import copied_in
from slimnet.measure import forward, in_float64, output_tensors
from slimnet.records import Parity, Plan

TOLERANCE = 1e-8


def require_float64(model: nn.Module, example: Any) -> None:
    """Check that a float64 copy of the model runs and repeats itself, as the proofs need.

    Raises:
        InputError: it does not; the message says why.
    """
    reference, inputs = copied_in(model, torch.float64).eval(), in_float64(example)
    require_repeats(reference, inputs, float64_output(reference, inputs))


def float64_output(model: nn.Module, inputs: Any) -> tuple[Tensor, ...]:
    """Return what a float64 model gives.

    Raises:
        InputError: it does not run, gives no floating-point tensor or changes its inputs.
    """
    before = copy.deepcopy(inputs)
    try:
        with torch.no_grad():
            outputs = output_tensors(forward(model, inputs))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            "nothing can be proven about this network, because it does not run in float64 "
            f"({reason}); take fixed casts like x.float() out of its forward"
        ) from error
    if not outputs:
        raise InputError(
            "nothing can be proven about this network, because no floating-point tensor comes out"
        )
    if not all(map(torch.equal, tree_leaves(inputs), tree_leaves(before))):
        raise InputError(
            "the network's forward changes its own input in place, as x.sub_(mean) does, so every "
            "image would be another the second time; let it work on a copy (x = x - mean)"
        )
    return outputs


def require_repeats(model: nn.Module, inputs: Any, first: Sequence[Tensor]) -> None:
    """Check that a float64 model gives the same output once more.

    Raises:
        InputError: it does not.
    """
    second = float64_output(model, inputs)
    if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        raise InputError(
            "nothing can be proven about this network, because it gives another output each time; "
            "take the randomness out of its eval mode"
        )


def relative_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest difference as a share of each output's scale; inf where none is right."""
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            return math.inf
        if other.numel():
            scale = other.abs().max().clamp_min(torch.finfo(other.dtype).tiny)
            error = float((one - other).abs().max() / scale)
            worst = math.inf if math.isnan(error) else max(worst, error)
    return worst


def masked_slim_error(model: nn.Module, plan: Plan, example: Any) -> float:
    """Return how far masked and slim are apart, as a share of the output's scale, in float64.

    The model is not changed. The result is inf where the slim network fails or its output has
    another shape or is not finite.
    """
    reference, inputs = copied_in(model, torch.float64).eval(), in_float64(example)
    with torch.no_grad():
        try:
            slim_output = output_tensors(forward(slim_copy(reference, plan), inputs))
        except Exception:
            # whatever the network's own code raises on the smaller shapes means: not prunable
            return math.inf
        mask(reference, plan)
        return relative_error(slim_output, output_tensors(forward(reference, inputs)))


@torch.no_grad()
def expanded_copy(model: nn.Module, slim: nn.Module, plan: Plan) -> nn.Module:
    """Return a copy of ``model`` that holds the weights of ``slim`` where the plan leaves them."""
    full, coded = copy.deepcopy(model), copied_in(model, torch.float64)
    for state in (*coded.parameters(), *coded.buffers()):
        if state.is_floating_point():
            # every element says where it stands; cutting then tells where each slim one stood
            state.copy_(torch.arange(state.numel(), dtype=state.dtype).reshape(state.shape))
    places, values = slim_copy(coded, plan).state_dict(), slim.state_dict()
    for name, state in full.state_dict().items():
        flat = state.flatten().clone()
        if state.is_floating_point():
            flat[places[name].flatten().long()] = values[name].flatten()
        else:  # counters and index tables: no plan cuts them
            flat = values[name].flatten()
        state.copy_(flat.reshape(state.shape))
    return full


def prove_slim(model: nn.Module, slim: nn.Module, plan: Plan, example: Any) -> Parity:
    """Prove that ``slim`` is the original network masked by ``plan``; neither is changed.

    The slim network's weights (which repair may have changed) are put back at their places in the
    original shapes; cutting that network by the plan must give ``slim`` bit for bit, and masking
    it must compute the same in float64.

    Raises:
        ProofError: they differ by more than 1e-8 of the output's scale, or in a weight.
    """
    try:
        full = expanded_copy(model, slim, plan)
        replayed = slim_copy(full, plan).state_dict()
        same = all(torch.equal(v, replayed[k]) for k, v in slim.state_dict().items())
    except (RuntimeError, KeyError, IndexError) as misfit:
        raise ProofError("the plan does not fit the slim network; nothing was written") from misfit
    if not same:
        raise ProofError("replaying the plan does not give the slim network; nothing was written")
    error = masked_slim_error(full, plan, example)
    if error > TOLERANCE:
        raise ProofError(
            f"the slim network differs from the masked one by {error:.1e} of the output's scale "
            f"(allowed: {TOLERANCE:.0e}); nothing was written"
        )
    return Parity(relative_error=error, tolerance=TOLERANCE, images=len(tree_leaves(example)[0]))
