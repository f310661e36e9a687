"""Parameters and buffers of a network: read, replaced for a while, put back."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from slimnet.errors import InputError, SlimnetError
from slimnet.load import first_line


@torch.no_grad()
def set_values(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Change the model in place: give parameters and buffers these values."""
    for name, value in values.items():
        get_state(model, name).copy_(value)


@contextmanager
def replaced(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Change the model for the time of the block only: it holds these values, uncopied."""
    states = {name: get_state(model, name) for name in values}
    before = {name: state.data for name, state in states.items()}
    try:
        for name, value in values.items():
            states[name].data = laid_out_as(value, states[name])
        yield
    finally:
        for name, value in before.items():
            states[name].data = value


def laid_out_as(value: Tensor, state: Tensor) -> Tensor:
    """Return the value in the memory format of a state; itself where it has that already.

    A convolution would otherwise change the layout of its weights in every call.
    """
    if state.ndim == 4 and state.is_contiguous(memory_format=torch.channels_last):
        return value.contiguous(memory_format=torch.channels_last)
    return value


def get_state(model: nn.Module, name: str) -> Tensor:
    """Return a parameter or buffer by its name."""
    module, _, leaf = name.rpartition(".")
    state = getattr(model.get_submodule(module), leaf)
    assert isinstance(state, Tensor)
    return state


def copied_state(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters and buffers by name, those that are not saved too."""
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: value.detach().clone() for name, value in state.items()}


@contextmanager
def undone_on_failure(
    model: nn.Module, before: Mapping[str, Tensor], problem: str
) -> Iterator[None]:
    """Change the model back to ``before`` where the block raises anything.

    Raises:
        InputError: the block raised an error of another kind, such as the network's own code
            does; the message is ``problem``, in which ``{}`` is what came.
    """
    try:
        yield
    except BaseException as error:
        set_values(model, before)
        # whoever interrupts wants to get out, and our own errors say already what to do
        if isinstance(error, SlimnetError) or not isinstance(error, Exception):
            raise
        raise InputError(problem.format(first_line(error))) from error


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Change the model to train or eval mode for the time of the block only."""
    flags = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


@contextmanager
def gradients_on(model: nn.Module) -> Iterator[None]:
    """Change the model for the time of the block only: gradients on for all that can have them.

    Gradients that parameters came with come back, and those of the block are dropped.
    """
    before = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    for parameter, _, _ in before:
        parameter.requires_grad_(parameter.is_floating_point())
    try:
        yield
    finally:
        for parameter, flag, gradient in before:
            parameter.requires_grad_(flag)
            parameter.grad = gradient
