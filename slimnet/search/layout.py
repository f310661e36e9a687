"""Images and networks laid out for speed, since the search runs over the same ones all the time."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.load.batches import labels_of
from slimnet.measure import CLASSIFICATION, Task
from slimnet.records import Batch, Batches, Split

# the largest feature map of a batch then stays near the size of a processor's caches
LARGEST_MAP_ELEMENTS = 2**19
SMALLEST_BATCH = 8
LARGEST_BATCH = 128
MOST_ELEMENTS = 2**27
SAME = 1e-3
ENOUGH_CLASSES = 0.9  # of those that another stride would take


@dataclass(frozen=True)
class Layout:
    """How a network likes its images: the memory format, and how many at once."""

    memory_format: torch.memory_format = torch.contiguous_format
    images: int = LARGEST_BATCH


@dataclass(frozen=True)
class Images:
    """Batches of images that are all in memory; iterating always gives the same ones."""

    inputs: Tensor
    labels: Tensor
    images_per_batch: int

    def __iter__(self) -> Iterator[Batch]:
        """Yield (inputs, labels), views of what is in memory."""
        size = self.images_per_batch
        yield from zip(torch.split(self.inputs, size), torch.split(self.labels, size), strict=True)

    def ordered(self, order: Tensor) -> Images:
        """Return a copy with the images in this order, int64 (images,)."""
        return replace(self, inputs=self.inputs[order], labels=self.labels[order])


def best_layout(model: nn.Module, inputs: Tensor) -> Layout:
    """Return channels last, which CPUs like, where the network computes the same with it.

    The model is not changed. Some networks insist on the usual layout, by a ``view`` for instance.
    """
    usual, last = torch.contiguous_format, torch.channels_last
    with torch.no_grad():
        expected, largest = _run(model, inputs[:2])
    fitting = max(1, LARGEST_MAP_ELEMENTS // largest)
    least = SMALLEST_BATCH if fitting > 1 else SMALLEST_BATCH // 2
    images = min(LARGEST_BATCH, max(least, 2 ** (fitting.bit_length() - 1)))
    if inputs.ndim != 4:
        return Layout(usual, images)
    try:
        with torch.no_grad():
            got = copy.deepcopy(model).to(memory_format=last)(
                inputs[:2].contiguous(memory_format=last)
            )
        same = torch.allclose(got, expected, rtol=SAME, atol=SAME * float(expected.abs().max()))
    except Exception:
        # whatever the network's own code raises means the same: not in this layout
        return Layout(usual, images)
    return Layout(last if same else usual, images)


def choose_layout(model: nn.Module, split: Split, task: Task) -> Layout | None:
    """Return the best layout, None for batches that cannot be taken apart; the model stays."""
    return best_layout(model, next(iter(split.batches))[0]) if task.by_image else None


@dataclass(frozen=True)
class EveryNth:
    """Every n-th of some batches, the first one included; implements ``records.Batches``."""

    batches: Batches
    stride: int

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches."""
        return islice(self.batches, 0, None, self.stride)


def some_batches(split: Split, images: int, task: Task) -> Split:
    """Return every n-th batch of the split, so that they hold about so many images at most."""
    stride = _stride(split, images)
    if stride == 1:
        return split
    batches = EveryNth(split.batches, stride)
    return replace(split, images=sum(task.images(batch) for batch in batches), batches=batches)


def lay_out(
    split: Split,
    images: int | None = None,
    layout: Layout | None = None,
    task: Task = CLASSIFICATION,
) -> Split:
    """Return the split with its images in memory, in batches and a format that the network likes.

    With ``images`` only every n-th image is taken, so that at most that many are left, and no more
    than fit in memory; a little fewer where images that come by their classes in turn would leave
    some classes out. Without it a split that would not fit comes back as it is, and so do, but for
    their number, batches that the task cannot take apart.
    """
    if not task.by_image:
        return split if images is None else some_batches(split, images, task)
    layout, fitting = layout or Layout(), images_that_fit(split, task)
    if images is None and fitting < split.images:
        return split
    stride = _stride_of_classes(split, fitting if images is None else min(images, fitting))
    kept, passed = [], 0
    for inputs, labels in split.batches:
        start = -passed % stride
        # a copy, so that the images between do not stay in memory
        kept.append((inputs[start::stride].clone(), labels[start::stride].clone()))
        passed += len(labels)
    inputs, labels = (torch.cat(part) for part in zip(*kept, strict=True))
    del kept  # as large as all of them together
    if layout.memory_format is torch.channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return replace(split, images=len(labels), batches=Images(inputs, labels, layout.images))


def lay_out_each(
    split: Split, counts: Sequence[int], layout: Layout | None, task: Task
) -> list[Split]:
    """Return what ``lay_out`` gives for each number of images; equal ones share their memory.

    Numbers that do not fit in memory are as many as do.
    """
    made: dict[int, Split] = {}
    fitting = images_that_fit(split, task)
    find = _stride_of_classes if task.by_image else _stride
    strides = {images: find(split, min(images, fitting)) for images in counts}
    for images, stride in strides.items():
        if stride not in made:
            made[stride] = lay_out(split, images, layout, task)
    return [made[strides[images]] for images in counts]


def _stride(split: Split, images: int) -> int:
    """Return n so that every n-th image of the split makes at most so many."""
    return max(1, -(-split.images // images))


def _stride_of_classes(split: Split, images: int) -> int:
    """Return the smallest such n that leaves out no more classes than others do, or hardly."""
    least = _stride(split, images)
    strides = range(least, 2 * least)
    if len(strides) == 1:
        return least
    labels = labels_of(split.batches)
    classes = [len(torch.unique(labels[::stride])) for stride in strides]
    enough = ENOUGH_CLASSES * max(classes)
    return next(n for n, found in zip(strides, classes, strict=True) if found >= enough)


def images_that_fit(split: Split, task: Task = CLASSIFICATION) -> int:
    """Return how many images of a split fit in memory, by what ``lay_out`` allows itself."""
    if not task.by_image:
        return split.images
    first, _ = next(iter(split.batches))
    fitting: int = MOST_ELEMENTS // first[0].numel()
    return min(split.images, max(1, fitting))


def _run(model: nn.Module, inputs: Tensor) -> tuple[Tensor, int]:
    """Return the output, and how many elements the largest map of one image has."""
    largest = [1]

    def watch(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor):
            largest.append(output.numel() // len(inputs))

    handle = torch.nn.modules.module.register_module_forward_hook(watch)
    try:
        return model(inputs), max(largest)
    finally:
        handle.remove()
