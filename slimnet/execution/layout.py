"""Images and networks laid out for speed: the search runs the same ones over and over again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from slimnet.execution.running import MEMORY_BYTES
from slimnet.load import copied
from slimnet.records import Split, Splits
from slimnet.tasks import CLASSIFICATION, Task

# the largest feature map of a batch is 2 MiB, about the size of a processor core's second cache
MAX_MAP_ELEMENTS = 2**19
MIN_BATCH = 8  # a guess: smaller batches run at less than half of the speed
MAX_BATCH = 128  # as --batch-size; a guess
# relative to the largest output; float32 in another order differs by less than a tenth of it
SAME = 1e-3


@dataclass(frozen=True)
class Layout:
    """How a network runs fastest: the images' memory format, and how many are in a batch."""

    memory_format: torch.memory_format = torch.contiguous_format
    images: int = MAX_BATCH


def choose_layout(model: nn.Module, split: Split, task: Task) -> Layout:
    """Return the best layout for a network; it is not changed. Whole batches stay as they are."""
    inputs = task.batches(split.batches).first_inputs()
    return Layout() if inputs is None else best_layout(model, inputs)


def in_fitting_batches(model: nn.Module, splits: Splits, task: Task) -> Splits:
    """Return the splits in batches no larger than the best layout has; the model is not changed.

    Batches of 128 images of 224 x 224 pixels take gigabytes, and run no faster. Whole batches stay.
    """
    images = choose_layout(model, splits.calibration, task).images

    def fitting(split: Split) -> Split:
        batches = task.batches(split.batches)
        large = batches.by_image and max(map(len, batches.parts)) > images
        return replace(split, batches=batches.regrouped(images)) if large else split

    return splits.mapped(fitting)


def best_layout(model: nn.Module, inputs: Tensor) -> Layout:
    """Return channels last, which CPUs like, where the network computes the same with it.

    The model is not changed. Some networks need the contiguous format, for a ``view`` say.
    """
    contiguous, last = torch.contiguous_format, torch.channels_last
    with torch.no_grad():
        expected, largest = _run(model, inputs[:2])
    fitting = max(1, MAX_MAP_ELEMENTS // largest)
    fewest = MIN_BATCH if fitting > 1 else MIN_BATCH // 2
    images = min(MAX_BATCH, max(fewest, 2 ** (fitting.bit_length() - 1)))
    if inputs.ndim != 4:
        return Layout(contiguous, images)
    try:
        with torch.no_grad():
            got = copied(model).to(memory_format=last)(inputs[:2].contiguous(memory_format=last))
        same = torch.allclose(got, expected, rtol=SAME, atol=SAME * float(expected.abs().max()))
    except Exception:
        # whatever the network's own code raises means the same: not in this layout
        return Layout(contiguous, images)
    return Layout(last if same else contiguous, images)


def lay_out(
    split: Split,
    images: int | None = None,
    layout: Layout | None = None,
    task: Task = CLASSIFICATION,
    memory_bytes: int = MEMORY_BYTES,
) -> Split:
    """Return the split with its images in memory, in the batches and the format of the layout.

    With ``images`` only every n-th image is taken: at most that many, and no more than fit into
    ``memory_bytes``. They are fewer where images cycle through their classes and every n-th would
    leave some out. Without ``images`` a split that does not fit comes back as it is. Batches that
    the task cannot take apart are not changed; every n-th of them is taken.
    """
    (laid_out,) = lay_out_each(split, [images], layout, task, memory_bytes)
    return laid_out


def lay_out_each(
    split: Split,
    counts: Sequence[int | None],
    layout: Layout | None,
    task: Task,
    memory_bytes: int = MEMORY_BYTES,
) -> list[Split]:
    """Return the split ``lay_out`` for each number of images; equal ones share their memory."""
    layout, batches = layout or Layout(), task.batches(split.batches)
    fitting = batches.fitting(memory_bytes)
    made: dict[int, Split] = {}
    laid_out = []
    for images in counts:
        if images is None and fitting < batches.images:
            laid_out.append(split)
            continue
        stride = batches.stride_for(fitting if images is None else min(images, fitting))
        if stride not in made:
            taken = batches.every_nth(stride).loaded(layout.images, layout.memory_format)
            made[stride] = replace(split, images=taken.images, batches=taken)
        laid_out.append(made[stride])
    return laid_out


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
