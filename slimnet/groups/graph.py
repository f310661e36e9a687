"""Follow a layer's channels in torch-pruning's dependency graph."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning.dependency import graph as graph_of_torch_pruning

from slimnet.execution import (
    BATCH_NORMS,
    GROUP_NORMS,
    PRODUCERS,
    has_one_axis,
)
from slimnet.load import on_shapes

# The modules of one group: a few hundred if the search ends; 10,000 take seconds.
MAX_MODULES = 10_000
MIN_MAX_MODULES = 1_000  # after several endless searches in one network
# A guess: concatenated channels may be more than the widest layer has.
CHANNELS_PER_WIDEST = 4
OPERATIONS = tuple(
    getattr(torch_pruning.ops, name)
    for name in (
        "_ConcatOp",
        "_SplitOp",
        "_UnbindOp",
        "_ReshapeOp",
        "_SliceOp",
        "_ElementWiseOp",
        "_ExpandOp",
    )
)


@dataclass(frozen=True)
class Entry:
    """The inputs or outputs of a module: ``index[i]`` goes with channel ``unit[i]`` of a root."""

    module: str
    kind: type
    is_input: bool
    index: Tensor
    unit: Tensor
    ends_network: bool


LOST = "its channels could not be followed, one by one, to layers that read them"


class NotFollowedError(Exception):
    """A layer's channels could not be followed; the message says why."""


class NotPrunableError(Exception):
    """Something that goes with a layer's channels cannot be removed; the message says why."""


class Trace:
    """The dependency graph of a copy of the model; the model itself is not changed.

    Raises:
        NotFollowedError: the graph cannot be built for this network.
    """

    def __init__(self, model: nn.Module, example: Any) -> None:
        self._max_modules = MAX_MODULES
        widest = max((max(p.shape, default=1) for p in model.parameters()), default=1)
        self._max_channels = CHANNELS_PER_WIDEST * widest
        try:
            self.model, self._graph = on_shapes(_dependencies, model, example, _all_learning)
        except Exception as error:
            raise NotFollowedError(
                f"the dependency graph of this network cannot be built ({error})"
            ) from error
        self._names = {module: name for name, module in self.model.named_modules()}
        self._parameters = {id(p): name for name, p in self.model.named_parameters()}

    def roots(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield name and module of every traced layer that produces channels, in model order."""
        for module, name in self._names.items():
            if isinstance(module, PRODUCERS) and module in self._graph.module2node:
                yield name, module

    def entries(self, root: nn.Module, channels: int) -> list[Entry]:
        """Return everything that goes with the output channels of ``root``.

        Raises:
            NotFollowedError: the search failed, or does not end.
        """
        pruner = self._graph.get_pruner_of_module(root)
        search = bounded_search(self._max_modules, self._max_channels)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = search(self._graph, root, pruner.prune_out_channels, list(range(channels)))
        except EndlessSearchError as error:
            # the next layers of such a network are likely to end no better
            self._max_modules = max(MIN_MAX_MODULES, self._max_modules // 2)
            raise NotFollowedError("following its channels does not end") from error
        except Exception as error:
            raise NotFollowedError(f"its channels cannot be followed ({error})") from error
        items = [found[i] for i in range(len(found))]
        if any(None in item.root_idxs for item in items):
            raise NotFollowedError(
                "its channels are mixed with others and cannot be followed one by one"
            )
        return [self._entry(item) for item in items]

    def _entry(self, item: torch_pruning._helpers.GroupItem) -> Entry:
        node, module = item.dep.target, item.dep.target.module
        one_axis = has_one_axis(module) or isinstance(module, OPERATIONS)
        is_input = not one_axis and self._graph.is_in_channel_pruning_fn(item.dep.handler)
        return Entry(
            module=self._names.get(module, self._parameters.get(id(module), "")),
            kind=type(module),
            is_input=is_input,
            index=torch.tensor(list(item.idxs)),
            unit=torch.tensor(list(item.root_idxs)),
            ends_network=isinstance(module, torch_pruning.ops._OutputOp)
            or (not is_input and not node.outputs),
        )

    def norm_after(self, layer: str) -> str | None:
        """Return the batch or group norm that alone reads the output of ``layer``, or None."""
        outputs = self._graph.module2node[self.model.get_submodule(layer)].outputs
        alone = len(outputs) == 1 and len(outputs[0].inputs) == 1
        if alone and isinstance(outputs[0].module, (*BATCH_NORMS, *GROUP_NORMS)):
            return str(self._names[outputs[0].module])
        return None


def _dependencies(model: nn.Module, inputs: Any) -> tuple[nn.Module, Any]:
    """Return the model and its dependency graph, which changes and keeps the model."""
    graph = torch_pruning.DependencyGraph()
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph.build_dependency(
            model, (inputs,) if isinstance(inputs, Tensor) else inputs, verbose=False
        )
    return model, graph


def _all_learning(model: nn.Module) -> nn.Module:
    """Change the model so that the graph contains all of it, and return it."""
    for parameter in model.eval().parameters():
        # the graph silently leaves out frozen parameters
        parameter.requires_grad_(True)
    for module in model.modules():
        if getattr(module, "inplace", False):
            # in-place work on a view, which a linear layer may return, rewrites the graph
            module.inplace = False  # type: ignore[assignment]
    _free_single_slopes(model)
    return model


def _free_single_slopes(model: nn.Module) -> None:
    """Change the model in place: replace each PReLU of one slope, which fits any width.

    The graph would couple all layers that share such a PReLU.
    """
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.PReLU) and module.num_parameters == 1 and name:
            model.set_submodule(name, nn.LeakyReLU())


class EndlessSearchError(Exception):
    """The search for a group grew beyond its bounds."""


class _BoundedGroup(graph_of_torch_pruning.Group):  # type: ignore[misc]  # it has no types
    """A group that raises when it exceeds a number of modules, or of channels of one module."""

    def __init__(self, max_modules: int, max_channels: int) -> None:
        super().__init__()
        self._max_modules, self._max_channels = max_modules, max_channels

    def add_dep(self, dep: Any, idxs: Any) -> None:
        if len(self) >= self._max_modules or len(idxs) > self._max_channels:
            raise EndlessSearchError
        super().add_dep(dep, idxs)


def bounded_search(
    max_modules: int, max_channels: int
) -> Callable[..., torch_pruning.dependency.Group]:
    """Return torch-pruning's ``get_pruning_group`` with bounds; its first argument is the graph.

    Without bounds it multiplies channels endlessly along the residual stream of a Swin, and steps
    along that of a MaxViT. The bounds are counts, not times, so the result is the same on any
    machine. The returned function raises EndlessSearchError beyond its bounds.
    """
    search = graph_of_torch_pruning.DependencyGraph.get_pruning_group
    # the same code with another Group among its globals; torch-pruning itself is not changed
    names = {**search.__globals__, "Group": partial(_BoundedGroup, max_modules, max_channels)}
    return FunctionType(
        search.__code__, names, search.__name__, search.__defaults__, search.__closure__
    )
