"""Detection end to end with the guide's task: a head that caches grids, from training to ONNX."""

import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset, default_collate

import slimnet

GUIDE = Path(slimnet.__file__).parent / "GUIDE.md"
SIZE, OBJECTS, KINDS = 32, 2, 2
OPTIONS = {
    "objective": "macs", "metrics": "taylor_first_order", "step": 24, "max_ratio": 0.3,
    "depth": "off", "latency_samples": 3, "latency_batch": (1,), "batch_size": 25,
}  # fmt: skip


def convolution(inputs, outputs, size=3, stride=1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    )


class Split(nn.Module):
    """One half of the channels goes on, the other through a block too; all are joined."""

    def __init__(self, channels):
        super().__init__()
        self.first = convolution(channels, channels, 1)
        self.block = convolution(channels // 2, channels // 2)
        self.last = convolution(channels * 3 // 2, channels, 1)

    def forward(self, x):
        first, second = self.first(x).chunk(2, 1)
        return self.last(torch.cat([first, second, second + self.block(second)], 1))


class Head(nn.Module):
    """Boxes in pixels and scores for every place of two maps. The places are cached."""

    strides = (4, 8)

    def __init__(self, *channels):
        super().__init__()
        self.parts = nn.ModuleList(
            nn.Sequential(convolution(c, 24), nn.Conv2d(24, 4 + KINDS, 1)) for c in channels
        )
        for part in self.parts:
            nn.init.constant_(part[1].bias[4:], -3.0)
        self.shape, self.places = None, None

    def forward(self, maps):
        if self.shape != maps[0].shape:
            self.shape, self.places = maps[0].shape, self.grids(maps)
        found = [part(x).flatten(2) for part, x in zip(self.parts, maps, strict=True)]
        far, scores = torch.cat(found, 2).split((4, KINDS), 1)
        centre, stride = self.places
        far = 2 * stride * functional.softplus(far)
        corners = torch.cat([centre - far[:, :2], centre + far[:, 2:]], 1)
        return corners.transpose(1, 2), scores.transpose(1, 2)

    def grids(self, maps):
        centres, strides = [], []
        for x, stride in zip(maps, self.strides, strict=True):
            rows, columns = (stride * (torch.arange(n) + 0.5) for n in x.shape[2:])
            centre = torch.stack(torch.meshgrid(columns, rows, indexing="xy")).flatten(1)
            centres.append(centre)
            strides.append(torch.full_like(centre[:1], stride))
        return torch.cat(centres, 1), torch.cat(strides, 1)


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(convolution(1, 8, stride=2), convolution(8, 24, stride=2))
        self.fine, self.down, self.head = Split(24), convolution(24, 32, stride=2), Head(24, 32)

    def forward(self, image):
        fine = self.fine(self.stem(image))
        return self.head([fine, self.down(fine)])


class Drawn(Dataset):
    """Squares and discs, one or two an image, in noise."""

    def __init__(self, count, seed):
        draw = torch.Generator().manual_seed(seed)
        self.items = [self.item(draw) for _ in range(count)]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]

    def item(self, draw):
        image = 0.2 * torch.randn(1, SIZE, SIZE, generator=draw)
        boxes, labels = torch.zeros(OBJECTS, 4), torch.full((OBJECTS,), -1)
        for number in range(int(torch.randint(1, OBJECTS + 1, (1,), generator=draw))):
            side = int(torch.randint(8, 15, (1,), generator=draw))
            top = int(torch.randint(0, SIZE - side + 1, (1,), generator=draw))
            # the second one is on the right: they do not overlap
            left = int(torch.randint(0, SIZE // 2 - side + 1, (1,), generator=draw))
            left += number * SIZE // 2
            kind = int(torch.randint(KINDS, (1,), generator=draw))
            axis = torch.arange(side) - (side - 1) / 2
            disc = axis[:, None] ** 2 + axis**2 <= (side / 2) ** 2
            image[0, top : top + side, left : left + side] += disc if kind else 1.0
            boxes[number] = torch.tensor([left, top, left + side, top + side])
            labels[number] = kind
        return {"image": image, "boxes": boxes, "labels": labels}


@pytest.fixture(scope="module")
def task():
    """The task that the guide shows."""
    (text,) = re.findall(
        r"^```python\n(# detection\.py\n.*?)^```$",
        GUIDE.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    names = {}
    exec(compile(text, "detection.py", "exec"), names)
    return slimnet.Task(names["loss"], names["score"])


@pytest.fixture(scope="module")
def detector(task):
    torch.manual_seed(0)
    network, items = Detector(), Drawn(400, seed=0)
    images = default_collate(list(items))
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(160):
        chosen = torch.randint(len(items), (16,))
        optimizer.zero_grad()
        task.loss(network, {name: values[chosen] for name, values in images.items()}).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def result(detector, task, tmp_path_factory):
    """What compress makes of the detector, which has run on other sizes before."""
    detector(torch.zeros(3, 1, 40, 24))
    data = tuple(Drawn(count, seed) for seed, count in enumerate((50, 100, 100), 1))
    folder = tmp_path_factory.mktemp("detection") / "slim"
    return slimnet.compress(detector, data, 20, task=task, out=folder, **OPTIONS)


def test_the_detector_is_slimmed_and_still_finds_what_is_there(detector, task, result):
    report = result.report
    assert report.slim_size.macs <= 0.8 * report.original_size.macs
    batches = [default_collate(list(Drawn(100, seed=9)))]
    with torch.no_grad():
        before, after = (task.score(network, batches) for network in (detector, result.model))
    assert before > 80
    assert after > before - 25  # the budget, and 5 for chance


@pytest.mark.parametrize("images", [1, 4])
def test_the_file_gives_boxes_and_scores_at_any_batch_size(images, result):
    inputs = torch.stack([item["image"] for item in Drawn(images, seed=5)])
    session = onnxruntime.InferenceSession(result.folder / "slim.onnx")
    found = session.run(None, {"input": inputs.numpy()})
    with torch.no_grad():
        wanted = result.model(inputs)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_the_folder_can_be_verified(detector, result):
    assert slimnet.verify(result.folder, model=detector).holds


def test_both_halves_of_a_split_can_lose_channels(detector):
    found = slimnet.inspect(detector, input_shape=(1, SIZE, SIZE))
    assert any({"fine.first.0"} <= set(group.layers) for group in found.groups)
    assert found.prunable_channels_percent > 85
