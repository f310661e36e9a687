"""The proof that a slim network computes what the masked one does, in float64."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from slimnet.errors import InputError, ProofError
from slimnet.groups.cut import mask, slim_copy
from slimnet.load import copied, copied_in
from slimnet.records import LoadedModel, Parity, Plan
from slimnet.tasks import forward, in_float64, output_tensors

# A share of the output's scale: float64 errors stay below 1e-10, wrong cuts are far above.
TOLERANCE = 1e-8
# A guess: weights computed in float64 are rounded to 1e-7, which grows from layer to layer.
FLOAT32_ROUNDING = 1e-4


def require_float64(model: nn.Module, example: Any) -> None:
    """Check that a float64 copy of the model runs and gives the same output twice, for the proofs.

    Raises:
        InputError: it does not; the message says why.
    """
    reference, inputs = copied_in(model, torch.float64).eval(), in_float64(example)
    require_repeats(reference, inputs, float64_output(reference, inputs))


def require_unchanged(loaded: LoadedModel, example: Any) -> None:
    """Check that the plain layers that were put into the network on loading change no output.

    Neither network is changed.

    Raises:
        InputError: they do.
    """
    if loaded.given is None:
        return
    models = (loaded.given, loaded.model)
    try:
        given, plain = (
            float64_output(copied_in(model, torch.float64).eval(), in_float64(example))
            for model in models
        )
    except InputError:  # fake-quantised weights, for one, are of float32 only
        with torch.no_grad():
            given, plain = (output_tensors(forward(model, example)) for model in models)
    if len(given) != len(plain) or not relative_error(plain, given) <= FLOAT32_ROUNDING:
        raise InputError(
            "layers that compute their weights, or pad or scale by themselves, were made plain, "
            "and the network gives other outputs now: its code uses them otherwise than by calling "
            "them; take that out (torch.nn.utils.parametrize.remove_parametrizations may help)"
        )


def float64_output(model: nn.Module, inputs: Any) -> tuple[Tensor, ...]:
    """Return the floating-point outputs of a float64 model.

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
            "the network's forward changes its own input in place, as x.sub_(mean) does, so a "
            "second pass would read other images; let it work on a copy (x = x - mean)"
        )
    return outputs


def require_repeats(model: nn.Module, inputs: Any, first: Sequence[Tensor]) -> None:
    """Check that a float64 model gives the output ``first`` again.

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
    """Return the largest difference, a share of the output's scale; inf for NaN or other shapes."""
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
    """Return the largest difference between masked and slim, a share of the output's scale.

    The model is not changed; the check runs in float64. The result is inf if the slim network
    fails, or its output has another shape or is not finite.
    """
    reference, inputs = copied_in(model, torch.float64).eval(), in_float64(example)
    with torch.no_grad():
        try:
            slim_output = output_tensors(forward(slim_copy(reference, plan), inputs))
        except Exception:
            # the network's own code may raise anything on smaller shapes
            return math.inf
        mask(reference, plan)
        return relative_error(slim_output, output_tensors(forward(reference, inputs)))


@torch.no_grad()
def expanded_copy(model: nn.Module, slim: nn.Module, plan: Plan) -> nn.Module:
    """Return a copy of ``model`` with the weights of ``slim`` at their original places.

    Layers that are gone whole keep the weights of ``model``, all of which the plan masks.
    """
    full, coded = copied(model), copied_in(model, torch.float64)
    for state in (*coded.parameters(), *coded.buffers()):
        if state.is_floating_point():
            # each element holds its own position, so a cut copy holds the original positions
            state.copy_(torch.arange(state.numel(), dtype=state.dtype).reshape(state.shape))
    places, values = slim_copy(coded, plan).state_dict(), slim.state_dict()
    for name, state in full.state_dict().items():
        if name not in places:
            continue
        flat = state.flatten().clone()
        if state.is_floating_point():
            flat[places[name].flatten().long()] = values[name].flatten()
        else:  # no plan cuts counters and index tables
            flat = values[name].flatten()
        state.copy_(flat.reshape(state.shape))
    return full


def prove_slim(model: nn.Module, slim: nn.Module, plan: Plan, example: Any) -> Parity:
    """Prove that ``slim`` computes the network masked by ``plan``; neither model is changed.

    The slim weights, which repair may have changed, are put back into the original shapes. Cutting
    that network by the plan must give ``slim`` bit for bit. Masking it must give the same output
    as ``slim`` in float64.

    Raises:
        ProofError: they differ by more than 1e-8 of the output's scale, or in a weight.
    """
    try:
        full = expanded_copy(model, slim, plan)
        replayed, given = slim_copy(full, plan).state_dict(), slim.state_dict()
        same = replayed.keys() == given.keys() and all(
            torch.equal(value, replayed[name]) for name, value in given.items()
        )
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
