"""Torch-pruning's dependency graph, read once and turned into plain entries."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from slimnet.groups.bounded_walk import EndlessWalkError, bounded_walk
from slimnet.groups.sides import BATCH_NORMS, PRODUCERS, TWO_SIDES_IN_ONE, is_depthwise
from slimnet.load import on_shapes

# of one group: a walk that ends takes a few hundred; a walk of 10,000 takes seconds
MOST_MODULES = 10_000
LEAST_MOST_MODULES = 1_000
CHANNELS_PER_WIDEST = 4  # concatenated, channels can be more than what any layer reads
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
    """One module that goes with a root's channels: index[i] of its side goes with unit[i]."""

    module: str
    kind: type
    is_input: bool
    index: Tensor
    unit: Tensor
    ends_network: bool


class NotFollowedError(Exception):
    """The dependency graph could not be built, or not be walked; the message says why."""


class Trace:
    """A dependency graph of a private copy of the model; the model itself is not changed.

    Raises:
        NotFollowedError: the graph cannot be built for this network.
    """

    def __init__(self, model: nn.Module, example: Any) -> None:
        self._most_modules = MOST_MODULES
        widest = max((max(p.shape, default=1) for p in model.parameters()), default=1)
        self._most_channels = CHANNELS_PER_WIDEST * widest
        try:
            self.model, self._graph = on_shapes(_dependencies, model, example, _all_learning)
        except Exception as error:
            raise NotFollowedError(
                f"the dependency graph of this network cannot be built ({error})"
            ) from error
        self._names = {module: name for name, module in self.model.named_modules()}

    def roots(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield name and module of every traced layer that produces channels, in model order."""
        for module, name in self._names.items():
            if isinstance(module, PRODUCERS) and module in self._graph.module2node:
                yield name, module

    def entries(self, root: nn.Module, channels: int) -> list[Entry]:
        """Return everything that goes with the output channels of ``root``.

        Raises:
            NotFollowedError: the walk failed, or does not end.
        """
        pruner = self._graph.get_pruner_of_module(root)
        walk = bounded_walk(self._most_modules, self._most_channels)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = walk(self._graph, root, pruner.prune_out_channels, list(range(channels)))
        except EndlessWalkError as error:
            # where one walk never ends, others will not
            self._most_modules = max(LEAST_MOST_MODULES, self._most_modules // 2)
            raise NotFollowedError("following its channels does not end") from error
        except Exception as error:
            raise NotFollowedError(f"its channels cannot be followed ({error})") from error
        items = [found[i] for i in range(len(found))]
        if any(None in item.root_idxs for item in items):
            raise NotFollowedError("its channels are mixed, so that they cannot be followed")
        return [self._entry(item) for item in items]

    def _entry(self, item: torch_pruning._helpers.GroupItem) -> Entry:
        node, module = item.dep.target, item.dep.target.module
        one_side = isinstance(module, TWO_SIDES_IN_ONE) or is_depthwise(module)
        is_input = not one_side and self._graph.is_in_channel_pruning_fn(item.dep.handler)
        if isinstance(module, OPERATIONS):
            is_input = False
        return Entry(
            module=self._names.get(module, ""),
            kind=type(module),
            is_input=is_input,
            index=torch.tensor(list(item.idxs)),
            unit=torch.tensor(list(item.root_idxs)),
            ends_network=isinstance(module, torch_pruning.ops._OutputOp)
            or (not is_input and not node.outputs),
        )

    def norm_after(self, layer: str) -> str | None:
        """Return the batch norm that alone reads the output of ``layer``, or None."""
        outputs = self._graph.module2node[self.model.get_submodule(layer)].outputs
        alone = len(outputs) == 1 and len(outputs[0].inputs) == 1
        if alone and isinstance(outputs[0].module, BATCH_NORMS):
            return str(self._names[outputs[0].module])
        return None


def _dependencies(model: nn.Module, inputs: Any) -> tuple[nn.Module, Any]:
    """Return the model, which belongs to the graph from now on, and its dependency graph."""
    graph = torch_pruning.DependencyGraph()
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph.build_dependency(
            model, (inputs,) if isinstance(inputs, Tensor) else inputs, verbose=False
        )
    return model, graph


def _all_learning(model: nn.Module) -> nn.Module:
    """Change the model to what the graph is built of, and return it."""
    for parameter in model.eval().parameters():
        # frozen parameters would vanish from the graph without a word
        parameter.requires_grad_(True)
    for module in model.modules():
        if getattr(module, "inplace", False):
            # working in place on a view, as a linear layer may put one out, rewrites the graph
            module.inplace = False  # type: ignore[assignment]
    _free_single_slopes(model)
    return model


def _free_single_slopes(model: nn.Module) -> None:
    """Change the model in place: a PReLU with one slope works on any width, so where several
    layers share it, it does not couple them.
    """
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.PReLU) and module.num_parameters == 1 and name:
            model.set_submodule(name, nn.LeakyReLU())
