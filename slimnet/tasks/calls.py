"""Calling a network with anything that it takes, and calling the functions of a user's task."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from slimnet.errors import InputError, SlimnetError
from slimnet.load import attributes_kept, first_line
from slimnet.records import Batches, Inputs

LOSS = "one number, the mean over the batch, as of .mean()"
SAME = 1e-6  # relative; float32 rounds to 6e-8, and sums of it differ by more
CallBatch = Callable[[int, Callable[[], Tensor]], Tensor]
"""Takes the number of a batch and a function that runs the model on it; returns its output."""


def call_plainly(_: int, run: Callable[[], Tensor]) -> Tensor:
    """Return what ``run`` gives."""
    return run()


def forward(model: nn.Module, inputs: Any) -> Any:
    """Return the model's output: a tensor is its one input, a tuple or a mapping are several."""
    if isinstance(inputs, Tensor):
        return model(inputs)
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


def output_tensors(output: Any) -> tuple[Tensor, ...]:
    """Return the floating-point tensors in an output, dict, list or tuple, in a fixed order."""
    leaves = _pytree.tree_leaves(output)
    return tuple(x for x in leaves if isinstance(x, Tensor) and x.is_floating_point())


def input_tensors(inputs: Inputs) -> tuple[Tensor, ...]:
    """Return the inputs one by one."""
    return (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)


def fill_batch(inputs: Any, images: int) -> Any:
    """Return inputs (images, ...) on the CPU, of the same form: their rows, over and over."""

    def fill(leaf: Tensor) -> Tensor:
        return leaf.detach().cpu()[torch.arange(images) % len(leaf)].contiguous()

    return _pytree.tree_map(fill, inputs)


def in_float64(inputs: Any) -> Any:
    """Return the inputs with every floating-point tensor in float64; they are not changed."""

    def convert(leaf: Any) -> Any:
        floating = isinstance(leaf, Tensor) and leaf.is_floating_point()
        return leaf.to(torch.float64) if floating else leaf

    return _pytree.tree_map(convert, inputs)


def watched(model: nn.Module, run: Callable[[], Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return what ``run`` gives, and all floating-point tensors that the model puts out in it."""
    found: list[Tensor] = []
    handle = model.register_forward_hook(lambda _, __, output: found.extend(output_tensors(output)))
    try:
        result = run()
    finally:
        handle.remove()
    return result, tuple(found)


@contextmanager
def _watched_calls(model: nn.Module) -> Iterator[list[tuple[Any, Any]]]:
    """Give a list that holds the arguments of every call of the model in the block."""
    calls: list[tuple[Any, Any]] = []
    handle = model.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    try:
        yield calls
    finally:
        handle.remove()


def first_inputs(model: nn.Module, run: Callable[[], Any], images: int) -> Inputs:
    """Return the inputs of the first call of the model in ``run``, at most so many images.

    The model is not changed.

    Raises:
        InputError: the call cannot be written as one with tensors of equally many images.
    """
    with torch.no_grad(), _watched_calls(model) as calls:
        run()
    if not calls:
        raise InputError("the task's loss never calls the model that it is given; call that one")
    inputs = _positional(model, *calls[0])
    lengths = {len(tensor) if tensor.ndim else 0 for tensor in input_tensors(inputs)}
    if len(lengths) != 1 or lengths == {0}:
        raise InputError(
            "a network's inputs must have one entry an image along the first dimension; got "
            + ", ".join(str(tuple(tensor.shape)) for tensor in input_tensors(inputs))
        )
    few: Inputs = fill_batch(inputs, min(images, *lengths))
    return few


def _positional(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
    """Return a call's arguments in the order of the model's own, as one tensor or several."""
    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    if not bound.args or bound.kwargs or not all(isinstance(x, Tensor) for x in bound.args):
        kinds = [type(value).__name__ for value in (*bound.args, *bound.kwargs.values())]
        raise InputError(
            f"a network takes tensors as positional arguments; got {', '.join(kinds) or 'none'}: "
            "wrap it; of a detector that takes a list of images give the part that takes one "
            "tensor, up to the boxes and scores of all places (guide, Detection)"
        )
    return bound.args[0] if len(bound.args) == 1 else tuple(bound.args)


def check_task(
    model: nn.Module, loss: Callable[[nn.Module, Any], Tensor], batches: Batches
) -> Inputs:
    """Return two example inputs, (2, ...) each, as the loss gives them; the model is not changed.

    Raises:
        InputError: the loss fails on the first batch, is not one finite number with a gradient,
            or calls the model in a way that cannot be exported.
    """
    batch = next(iter(batches), None)
    try:
        with torch.enable_grad(), attributes_kept(model), _watched_calls(model) as calls:
            value = loss(model, batch)
    except SlimnetError:
        raise
    except Exception as error:  # the user's and the network's own code may raise anything
        if calls:
            _positional(model, *calls[0])  # a call that is refused anyway says more
        raise InputError(
            f"the task's loss fails on the first batch: {first_line(error)}; it is called with "
            "model and batch, as the data's items collated"
        ) from error
    if not isinstance(value, Tensor) or value.numel() != 1 or value.is_complex():
        raise InputError(f"the task's loss is {LOSS}; got {_in_words(value)}")
    if not bool(value.isfinite()):
        raise InputError(
            f"the task's loss is {value.item()} on the first batch; check data and weights"
        )
    if not value.requires_grad:
        raise InputError(
            "the task's loss must have a gradient; compute it with torch, without no_grad, "
            "detach or item"
        )
    example = first_inputs(model, lambda: loss(model, batch), 2)
    if len(input_tensors(example)[0]) < 2:
        raise InputError(
            "the first batch must hold 2 images or more; give more data or a larger --batch-size"
        )
    return example


def scored(
    score: Callable[[nn.Module, Iterable[Any]], float], model: nn.Module, batches: Iterable[Any]
) -> float:
    """Return the user's score of a model on batches; the model is not changed.

    Raises:
        InputError: the function fails, or gives something other than a number.
    """
    try:
        value = score(model, batches)
    except SlimnetError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise InputError(
            f"the task's score fails: {first_line(error)}; it is called with model and batches, "
            "which it can iterate over"
        ) from error
    try:
        if not isinstance(value, (bool, str)):
            return float(value)
    except (TypeError, ValueError, RuntimeError):  # tensors and arrays of several numbers, or none
        pass
    raise InputError(f"the task's score is one number, 0 to 100 points; got {_in_words(value)}")


def _in_words(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {value.dtype}"
    return f"a {type(value).__name__}"


def check_score(
    score: Callable[[nn.Module, Iterable[Any]], float], model: nn.Module, batches: Batches
) -> None:
    """Try a user's score on the first batch; the model is not changed.

    Raises:
        InputError: it fails, is no number, changes the model, does not call it, or differs from
            one call to the next.
    """
    batch = next(iter(batches))
    with torch.no_grad(), _watched_calls(model) as calls:
        with unchanged(model, "score"):
            first = scored(score, model, [batch])
        second = scored(score, model, [batch])
    if not calls:
        raise InputError("the task's score never calls the model that it is given; call that one")
    if not math.isclose(first, second, rel_tol=SAME, abs_tol=SAME) and first == first:
        raise InputError(
            f"the task's score is another each time, {first:g} and {second:g} for the same batch: "
            "no drop can be measured; take the randomness out of it"
        )


@contextmanager
def unchanged(model: nn.Module, function: str) -> Iterator[None]:
    """Refuse a function of the user's that changes the model in the block.

    Raises:
        InputError: weights, statistics or train mode differ from those before the block.
    """
    modes = [module.training for module in model.modules()]
    values = {name: value.clone() for name, value in model.state_dict().items()}
    yield
    if modes != [module.training for module in model.modules()]:
        raise InputError(
            f"the task's {function} must not change the network; it changes train and eval mode: "
            "take model.train() and model.eval() out of it"
        )
    for name, value in model.state_dict().items():
        same = torch.isclose(value, values[name], rtol=0, atol=0, equal_nan=True)
        if not bool(same.all()):
            raise InputError(
                f"the task's {function} must not change the network; it changes {name}"
            )
