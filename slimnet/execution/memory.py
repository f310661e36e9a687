"""The memory budget: how many bytes a search may hold to save itself from running layers again."""

from __future__ import annotations

from dataclasses import dataclass

from slimnet.data import MEMORY_BYTES


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes for caches. The network, its images and its inverse Gram matrices come on top.

    ``--memory-mib`` also limits how many images each part of the search holds in memory.

    The caches that live at the same time hold ``total_bytes`` together: activations of the last
    evaluated network, outputs of the teacher, and the trials of a round or, while layers are
    refitted, the activations before them. A smaller budget makes a search slower and changes no
    result, but for exchanges: see ``slimnet.search.exchange``. The default is a guess that leaves
    a laptop of 8 GB usable; the paper's networks need less.
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
