"""A network as it runs: norms folded into layers, calls known for a replay, memory for caches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor, nn

from slimnet.execution.folding import can_fold, folded, folded_values, norms_to_fold
from slimnet.execution.replay import Call, Change, Replay, first_call, replaying, trace_calls
from slimnet.execution.states import get_state, laid_out_as
from slimnet.load import attributes_kept
from slimnet.options import MemoryOptions

MEMORY_BYTES = MemoryOptions().memory_bytes


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes for caches. The network, its images and its inverse Gram matrices come on top.

    ``--memory-mib`` also limits how many images each part of the search holds in memory.

    The caches that live at the same time hold ``total_bytes`` together: activations of the last
    evaluated network, outputs of the teacher, and the trials of a round or, while layers are
    refitted, the activations before them. A smaller budget makes a search slower and changes no
    result. The default is a guess that leaves a laptop of 8 GB usable; the paper's networks need
    less.
    """

    total_bytes: int = MEMORY_BYTES

    @property
    def activations(self) -> int:
        """Bytes for the outputs of layers, by batch."""
        return self.total_bytes // 4

    @property
    def teacher_outputs(self) -> int:
        """Bytes for what the original network's layers put out."""
        return self.total_bytes // 4

    @property
    def trials(self) -> int:
        """Bytes for the changed weights of trials."""
        return self.total_bytes // 2


@dataclass(frozen=True)
class RunningNetwork:
    """A network, which is not changed, and a faster one that gives the same outputs.

    Args:
        model: the network.
        norms: the batch norms to fold, by the layer before each.
        calls: of the modules of ``folded_model``, in order; without them nothing is replayed.
        memory: what may be cached while it runs.
    """

    model: nn.Module
    norms: Mapping[str, str] = field(default_factory=dict)
    calls: Sequence[Call] = ()
    memory: MemoryBudget = field(default_factory=MemoryBudget)

    @cached_property
    def folded_model(self) -> nn.Module:
        """The network that runs: a copy with norms folded, or the model itself if it has none."""
        return folded(self.model, self.norms) if self.norms else self.model

    def with_model(self, model: nn.Module) -> RunningNetwork:
        """Return another version of the network, with modules of the same names, run alike.

        Norms behind layers of which nothing or a constant is left are not folded.
        """
        norms = {
            layer: norm
            for layer, norm in self.norms.items()
            if can_fold(model.get_submodule(layer), model.get_submodule(norm))
        }
        return replace(self, model=model, norms=norms)

    def change(self, values: Mapping[str, Tensor]) -> Change:
        """Return new values of ``model`` as a change of ``folded_model``; neither is changed."""
        values = folded_values(self.model, values, self.norms)
        # laid out here once, and not each time that the change is tried
        values = {
            k: laid_out_as(value, get_state(self.folded_model, k)) for k, value in values.items()
        }
        return Change(values, first_call(self.calls, {k.rpartition(".")[0] for k in values}))

    @contextmanager
    def replay(self) -> Iterator[Replay]:
        """Change ``folded_model`` for the time of the block: its modules can be replayed."""
        with attributes_kept(self.folded_model), replaying(self.folded_model, self.calls) as replay:
            yield replay


def prepare_running(
    model: nn.Module,
    norms: Mapping[str, str],
    run: Callable[[nn.Module], Sequence[Tensor]],
    memory: MemoryBudget | None = None,
) -> RunningNetwork:
    """Return the network as it runs fastest; the model is not changed.

    Args:
        model: the network, in eval mode.
        norms: the batch norm that alone reads a layer's output, by layer. They are folded where
            the outputs stay the same.
        run: runs a network on a few images and returns its outputs.
        memory: what may be cached while it runs.
    """
    running = RunningNetwork(
        model, norms_to_fold(model, norms, run), memory=memory or MemoryBudget()
    )
    return replace(
        running, calls=trace_calls(running.folded_model, lambda: run(running.folded_model))
    )
