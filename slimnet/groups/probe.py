"""Try removals on a randomized float64 copy of a network: slim must equal masked."""

import copy
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.execution import watching
from slimnet.groups.cut import channels_of, cut_out, masked
from slimnet.groups.group import Group
from slimnet.groups.prove import TOLERANCE, float64_output, relative_error, require_repeats
from slimnet.load import attributes_kept, copied, copied_in, first_line, line_of_code, on_shapes
from slimnet.records import Plan
from slimnet.tasks import fill_batch, forward, in_float64, output_tensors

# Shares of the output's scale, unless another unit is named. All are guesses with a wide margin.
ROUNDING = 1e-11  # the largest error that float64 arithmetic makes in a deep network
MIN_CHANGE = 1e-12  # a removal that changes less proves nothing
MAX_ERROR_OF_CHANGE = 1e-3  # of the change that the removal makes
# The sum over all positions was up to 3,000 times the change of the output, so this is generous.
LOW_INFLUENCE = 1e-5
# Of how much the original's output varies between images. Rounding makes equal outputs vary by
# 1e-16 of their scale, and an output that varies a millionth as much as before is of no use.
MIN_VARIATION = 1e-6
NOISE = 0.3  # of the size of fresh weights: enough to move a dead channel or a scale of 1e-6
NO_INFLUENCE = "the network's output depends on it hardly or not at all, so nothing can be proven"
NEEDED = "without it the output no longer depends on the input"
NOT_MASKING = (
    "removing its channels is not the same as setting them to 0 (proof in float64): a later step "
    "works on several channels together, as a mean, a norm, a softmax or standardised weights do, "
    "or goes by their number or places, as a shuffle, a slice or padding with zero channels does"
)


class Probe:
    """A float64 copy of a network, with noise on every weight; the network is not changed.

    Without the noise, a layer scale of 1e-6, a head of zeros or a dead channel would hide a wrong
    removal. If the noise makes the output infinite or NaN, the copy keeps the original weights.
    """

    def __init__(self, model: nn.Module, example: Any, seed: int) -> None:
        """Make the copy, in eval mode.

        Raises:
            InputError: the network does not run in float64.
        """
        self._example = example
        self._inputs = in_float64(copy.deepcopy(example))
        self._model = copied_in(model, torch.float64).eval()
        self._repeats = False
        randomize(self._model, seed)
        try:
            self._output = float64_output(self._model, self._inputs)
            works = all(bool(part.isfinite().all()) for part in self._output)
        except InputError:
            works = False
        if not works:
            self._model = copied_in(model, torch.float64).eval()
            self._output = float64_output(self._model, self._inputs)

    def require_repeats(self) -> None:
        """Check, on the first call only, that the network gives the same output twice.

        Raises:
            InputError: it does not.
        """
        if not self._repeats:
            require_repeats(self._model, self._inputs, self._output)
        self._repeats = True

    def objection(self, plan: Plan, tolerance: float = TOLERANCE) -> str:
        """Return in plain words why this removal is wrong, or "" if slim equals masked.

        ``tolerance`` is the largest error allowed, as a share of the output's scale. A removal
        that changes the output little is allowed less.

        Raises:
            InputError: the network gives another output each time.
        """
        return self._objection(plan, tolerance)

    def _objection(
        self, plan: Plan, tolerance: float, masked_output: tuple[Tensor, ...] | None = None
    ) -> str:
        try:
            slim = cut_out(self._copy(plan), plan)
        except Exception as error:
            return _misfit(self._model, plan, error)
        try:
            found = self._run(slim)
        except Exception as error:
            # the network's own code may raise anything on smaller shapes
            return f"the network fails with fewer channels{_where(error)}"
        expected = masked_output or self._masked_output(plan)
        if text := _difference(found, expected, self._output, tolerance):
            self.require_repeats()  # only here: a pass of a large network takes long
        return text

    def objection_to_branch(self, plan: Plan) -> str:
        """Return why this branch cannot go, or "": ``objection``, and the input must still matter.

        Raises:
            InputError: the network gives another output each time.
        """
        expected = self._masked_output(plan)
        if not all(map(_varies, self._output, expected)):
            return NEEDED
        return self._objection(plan, TOLERANCE, expected)

    def objection_in_training(self, plan: Plan, _tolerance: float = TOLERANCE) -> str:
        """Return why the network cannot be trained after this removal, or "" if it can.

        Also "" if the original network cannot be trained on such inputs.
        """
        error = training_error(self._model, self._inputs, partial(cut_out, plan=plan))
        if error is None or not self._trains:
            return ""
        return f"a part that runs only in training reads its channels{_where(error)}"

    @cached_property
    def _trains(self) -> bool:
        return training_error(self._model, self._inputs) is None

    def low_influence(self, groups: Sequence[Group]) -> list[Group]:
        """Return the groups whose channels, to first order, hardly change the output.

        The estimate is |activation x gradient| of one image in float32. If gradients cannot be
        taken, all groups are returned.
        """
        subject = copied_in(self._model, torch.float32).requires_grad_(False)
        try:
            effects = _effects(subject, fill_batch(self._example, 1), groups)
        except Exception:  # the network's own code may refuse gradients in any way
            return list(groups)
        return [
            group
            for group in groups
            if not sum(effects.get(gate.layer, 0.0) for gate in group.gates) >= LOW_INFLUENCE
        ]

    def _copy(self, plan: Plan) -> nn.Module:
        """Return a copy that shares every module that the plan does not touch, to save time."""
        own = {""}
        for name in plan:
            parts = name.split(".")
            own |= {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
        shared = [module for name, module in self._model.named_modules() if name not in own]
        # parameters can be shared: cutting gives a module new ones
        return copied(
            self._model, {id(part): part for part in [*shared, *self._model.parameters()]}
        )

    def _masked_output(self, plan: Plan) -> tuple[Tensor, ...]:
        with masked(self._model, plan):
            return self._run(self._model)

    def _run(self, model: nn.Module) -> tuple[Tensor, ...]:
        with torch.no_grad(), attributes_kept(model):
            return output_tensors(forward(model, self._inputs))


def _varies(whole: Tensor, masked: Tensor) -> bool:
    """Return whether a masked output (images, ...) differs from image to image.

    The original output ``whole`` shows how much it could; an output of one image cannot.
    """
    before, after = (float((part - part[:1]).abs().max()) for part in (whole, masked))
    return before == 0 or after >= MIN_VARIATION * before


def _difference(
    found: Sequence[Tensor], expected: Sequence[Tensor], whole: Sequence[Tensor], tolerance: float
) -> str:
    """Return what is wrong with the slim outputs ``found``, or "" if they equal the masked ones.

    ``expected`` are the outputs of the masked network, ``whole`` those of the original.
    """
    if [part.shape for part in found] != [part.shape for part in expected]:
        return "it makes the network's output"
    changed = False
    for one, other, before in zip(found, expected, whole, strict=True):
        error, change = relative_error([one], [other]), relative_error([before], [other])
        if not error <= min(tolerance, max(MAX_ERROR_OF_CHANGE * change, ROUNDING)):
            return NOT_MASKING
        changed |= change >= MIN_CHANGE and error <= MAX_ERROR_OF_CHANGE * change
    return "" if changed else NO_INFLUENCE


def _misfit(model: nn.Module, plan: Plan, error: Exception) -> str:
    """Return why the plan cannot be cut out of the model; its own code has not run yet."""
    cut = {id(p) for name in plan for p in model.get_submodule(name).parameters()}
    owners = defaultdict(list)
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)].append(name)
    for parameter, names in owners.items():
        if parameter in cut and len(names) > 1:
            return (
                f"{' and '.join(names)} share a parameter, and slimnet cuts none that layers share"
            )
    for name, counts in channels_of(model, plan).items():
        for direction, size in counts.items():
            if max(plan[name][direction], default=-1) >= size:
                return (
                    "a step between the layers that are coupled here changes how many channels "
                    f"there are: {name} {'reads' if direction == 'in' else 'makes'} {size}"
                )
    return f"its channels cannot be cut out ({first_line(error)})"


def _where(error: Exception) -> str:
    """Return ": the line of the network's code that failed", or what the error says."""
    if line := line_of_code(traceback.extract_tb(error.__traceback__)):
        return f": {line}"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f": {text}"


@torch.no_grad()
def randomize(model: nn.Module, seed: int) -> None:
    """Change the model in place: add noise of ``NOISE`` times the size of fresh weights."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(state: Tensor) -> Tensor:
        # positive: a variance stays positive, and a scale near zero grows
        return torch.rand(state.shape, generator=generator, dtype=state.dtype).add_(0.5)

    for parameter in filter(torch.is_floating_point, model.parameters()):
        if parameter.ndim > 1:
            # float32 is generated several times as fast; 12 ** 0.5 makes the variance 1
            noise = torch.rand(parameter.shape, generator=generator).sub_(0.5)
            parameter.add_(noise, alpha=NOISE * (12 / parameter[0].numel()) ** 0.5)
        elif parameter.ndim == 1:
            parameter.add_(uniform(parameter), alpha=NOISE)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.add_(uniform(buffer), alpha=NOISE)


def training_error(
    model: nn.Module, inputs: Any, cut: Callable[[nn.Module], nn.Module] = lambda model: model
) -> Exception | None:
    """Return the error of running a copy forward and backward in train mode, after ``cut``.

    The model is not changed; None means no error.
    """
    try:
        on_shapes(_train_once, model, inputs, cut)
    except Exception as error:
        return error
    return None


def _train_once(model: nn.Module, inputs: Any) -> None:
    """Change the model: run it forward and backward in train mode."""
    small = [p for p in model.train().parameters() if p.ndim < 2]
    for parameter in model.parameters():
        # biases and norms alone need the whole backward pass too, with far less memory
        parameter.requires_grad_(parameter.ndim < 2 or not small)
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        outputs = output_tensors(forward(model, inputs))
        torch.autograd.backward([part.sum() for part in outputs])


def _effects(model: nn.Module, image: Any, groups: Sequence[Group]) -> dict[str, float]:
    """Return by layer how much the output depends on it, a share; the model is not changed."""
    layer_of = {gate.module: gate.layer for group in groups for gate in group.gates}
    seen: list[tuple[str, Tensor]] = []

    def watch(module: str, _module: nn.Module, _inputs: Tensor, output: Tensor) -> Tensor:
        if not output.requires_grad:
            output = output.requires_grad_()
        seen.append((layer_of[module], output))
        return output.clone()  # later code may work in place on it

    with watching(model, layer_of, after=watch), torch.enable_grad(), attributes_kept(model):
        total = torch.stack([_projected(p) for p in output_tensors(forward(model, image))]).sum()
        gradients = torch.autograd.grad(total, [output for _, output in seen], allow_unused=True)
    effects: dict[str, float] = {}
    for (layer, output), gradient in zip(seen, gradients, strict=True):
        if gradient is not None:
            effect = float((output.detach() * gradient).abs().sum())
            effects[layer] = effects.get(layer, 0.0) + effect
    return effects


def _projected(part: Tensor) -> Tensor:
    """Return a random weighted sum of the output's elements, divided by its scale."""
    weights = torch.randn(part.shape, generator=torch.Generator().manual_seed(0))
    scale = part.detach().abs().max().clamp_min(torch.finfo(part.dtype).tiny)
    return (part * weights).sum() / scale
