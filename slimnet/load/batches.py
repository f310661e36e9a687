"""Batches of preprocessed images, the same ones on every pass."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from slimnet.errors import InputError
from slimnet.load.preprocess import Preprocessor
from slimnet.load.source import Source
from slimnet.records import Batch, Batches

KEEP_BYTES = 2 * 1024**3


class ImageBatches:
    """Some images of a source, preprocessed; implements ``records.Batches``.

    After the first full pass the inputs are kept in memory if they take less than ``keep_bytes``;
    else every pass decodes anew. Batches are shared between passes: do not change them.
    """

    def __init__(
        self,
        source: Source,
        indices: Tensor,
        preprocessor: Preprocessor,
        shape: tuple[int, ...],
        batch_size: int,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        self.labels = source.labels[indices]
        self._source = source
        self._indices = indices
        self._preprocessor = preprocessor
        self._shape = shape
        self._batch_size = batch_size
        self._keep = 4 * len(indices) * int(torch.Size(shape).numel()) < keep_bytes
        self._kept: tuple[Batch, ...] | None = None

    def __iter__(self) -> Iterator[Batch]:
        """Give (inputs (N, C, H, W) float32, labels (N,) int64) in a fixed order.

        Raises:
            InputError: an image cannot be read, or has another size than the others.
        """
        if self._kept is not None:
            yield from self._kept
            return
        made: list[Batch] = []
        for start in range(0, len(self._indices), self._batch_size):
            batch = self._make(slice(start, start + self._batch_size))
            if self._keep:
                made.append(batch)
            yield batch
        if self._keep:
            self._kept = tuple(made)

    def _make(self, part: slice) -> Batch:
        # whoever reads them first, gradients may flow through these tensors later
        with torch.inference_mode(False):
            images = [self._input(index) for index in self._indices[part].tolist()]
            return torch.stack(images), self.labels[part]

    def _input(self, index: int) -> Tensor:
        image = self._preprocessor(self._source.read(index))
        if tuple(image.shape) != self._shape:
            raise InputError(
                f"{self._source.name}: images differ in shape, {tuple(image.shape)} after "
                f"{self._shape}; give --size N to resize and crop all to N x N pixels"
            )
        return image


def labels_of(batches: Batches) -> Tensor:
    """Return the labels (images,) int64 of all batches, without decoding images if possible."""
    labels = getattr(batches, "labels", None)
    if isinstance(labels, Tensor):
        return labels
    return torch.cat([labels for _, labels in batches])
