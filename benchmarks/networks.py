"""The networks of the myopic-oracle paper's Table III, with the parameter names of its authors.

Persand, Anderson and Gregg, "Composition of Saliency Metrics for Pruning with a Myopic Oracle",
2020. Use one with ``--arch benchmarks/networks.py:lenet5``.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional


class LeNet5(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.ip1 = nn.Linear(1250, 500)
        self.ip2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.conv1(x), 2)
        x = functional.max_pool2d(self.conv2(x), 2)
        scores: Tensor = self.ip2(functional.relu(self.ip1(x.flatten(1))))
        return scores


class Cifar10Net(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2)
        self.conv3 = nn.Conv2d(32, 64, 5, padding=2)
        self.ip1 = nn.Linear(1024, 64)
        self.ip2 = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(functional.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True))
        x = functional.avg_pool2d(functional.relu(self.conv2(x)), 3, 2, ceil_mode=True)
        x = functional.avg_pool2d(functional.relu(self.conv3(x)), 3, 2, ceil_mode=True)
        scores: Tensor = self.ip2(self.ip1(x.flatten(1)))
        return scores


class NetworkInNetwork(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU())

        self.conv1 = convolution(3, 192, 5)
        self.cccp1 = convolution(192, 160, 1)
        self.cccp2 = convolution(160, 96, 1)
        self.conv2 = convolution(96, 192, 5)
        self.cccp3 = convolution(192, 192, 1)
        self.cccp4 = convolution(192, 192, 1)
        self.conv3 = convolution(192, 192, 3)
        self.cccp5 = convolution(192, 192, 1)
        self.cccp6 = convolution(192, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cccp2(self.cccp1(self.conv1(x)))
        x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
        x = self.cccp4(self.cccp3(self.conv2(x)))
        x = functional.avg_pool2d(x, 3, 2, ceil_mode=True)
        x = self.cccp6(self.cccp5(self.conv3(x)))
        return functional.adaptive_avg_pool2d(x, 1).flatten(1)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.bn0 = nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.bn1 = nn.BatchNorm2d(outputs)
        if stride != 1:
            self.proj = nn.Conv2d(inputs, outputs, 1, stride)
            self.bnp = nn.BatchNorm2d(outputs)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.stride == 1 else self.bnp(self.proj(x))
        x = functional.relu(self.bn0(self.conv0(x)))
        return functional.relu(self.bn1(self.conv1(x)) + shortcut)


class ResNet20(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, 1, 1)
        self.bn = nn.BatchNorm2d(16)
        widths = [16] * 4 + [32] * 3 + [64] * 3
        self.blocks = nn.Sequential(
            *(
                Block(before, after, 1 if before == after else 2)
                for before, after in pairwise(widths)
            )
        )
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(functional.relu(self.bn(self.first(x))))
        scores: Tensor = self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return scores


class PaddedBlock(nn.Module):
    """Two convolutions beside a shortcut without weights, which pads new channels with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.stride != 1:
            before = self.added // 2
            shortcut = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, self.added - before))
        x = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(x + shortcut)


class PaddedResNet(nn.Module):
    """A residual network for 32x32 images: 6n + 2 layers, with widths of ``width`` x 1, 2 and 4."""

    def __init__(self, depth: int, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        blocks, inputs = (depth - 2) // 6, width
        for stage, outputs in enumerate((width, 2 * width, 4 * width), 1):
            layers = []
            for number in range(blocks):
                stride = 2 if stage > 1 and number == 0 else 1
                layers.append(PaddedBlock(inputs, outputs, stride))
                inputs = outputs
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        scores: Tensor = self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return scores


class AlexNet(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.conv4 = nn.Conv2d(128, 128, 3, padding=1)
        self.conv5 = nn.Conv2d(128, 96, 3, padding=1)
        self.hidden = nn.Linear(96 * 4 * 4, 256)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 3, 2, 1)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 3, 2, 1)
        x = functional.relu(self.conv4(functional.relu(self.conv3(x))))
        x = functional.max_pool2d(functional.relu(self.conv5(x)), 3, 2, 1)
        x = self.dropout(functional.relu(self.hidden(x.flatten(1))))
        scores: Tensor = self.classifier(x)
        return scores


def lenet5(num_classes: int = 10) -> nn.Module:
    """LeNet-5 for 32x32 colour images: 26,500 convolution weights."""
    return LeNet5(num_classes)


def cifar10net(num_classes: int = 10) -> nn.Module:
    """Caffe's "CIFAR-10 quick" network: 79,200 convolution weights."""
    return Cifar10Net(num_classes)


def nin(num_classes: int = 10) -> nn.Module:
    """Network in Network: 965,568 convolution weights."""
    return NetworkInNetwork(num_classes)


def resnet20(num_classes: int = 10) -> nn.Module:
    """ResNet-20 for 32x32 images: 270,256 convolution weights."""
    return ResNet20(num_classes)


def resnet32(num_classes: int = 10) -> nn.Module:
    """ResNet-32 for 32x32 images, with zero-padded shortcuts: 461,232 convolution weights."""
    return PaddedResNet(32, classes=num_classes)


def alexnet(num_classes: int = 10) -> nn.Module:
    """AlexNet's five convolutions at widths for 32x32 images: 352,608 convolution weights.

    The authors' own weights are not published: ``benchmarks/train.py`` trains it.
    """
    return AlexNet(num_classes)
