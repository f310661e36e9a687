"""Layers that compute their weights, or pad or scale by themselves, as real networks have."""

import torch
from torch import nn
from torch.ao import quantization
from torch.nn import functional, utils
from torch.nn.utils import parametrizations
from torchvision.ops import FrozenBatchNorm2d


class Standardised(nn.Conv2d):
    """As in BiT; timm's StdConv2d."""

    def forward(self, x):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        deviation = self.weight.std((1, 2, 3), keepdim=True)
        return self._conv_forward(x, (self.weight - mean) / (deviation + 1e-5), self.bias)


class Scaled(nn.Conv2d):
    """As in NFNets: standardised, with a gain."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def forward(self, x):
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True)
        scale = self.gain * torch.rsqrt(variance * self.weight[0].numel() + 1e-4)
        return self._conv_forward(x, (self.weight - mean) * scale, self.bias)


class Same(nn.Conv2d):
    """As in EfficientNets from TensorFlow: ceil(size / stride) rows and columns come out."""

    def padded(self, x):
        pads = []
        for axis in (1, 0):
            size, stride, dilation = x.shape[2 + axis], self.stride[axis], self.dilation[axis]
            needed = (-(-size // stride) - 1) * stride + (self.kernel_size[axis] - 1) * dilation
            missing = max(needed + 1 - size, 0)
            pads += [missing // 2, missing - missing // 2]
        return functional.pad(x, pads)

    def forward(self, x):
        return functional.conv2d(
            self.padded(x), self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


class StandardisedSame(Same):
    def forward(self, x):
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return functional.conv2d(self.padded(x), weight, self.bias, self.stride)


class StaticSame(nn.Conv2d):
    """Pads more at the end than at the start, whatever the size."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.static_padding = nn.ZeroPad2d((0, 1, 0, 1))

    def forward(self, x):
        return super().forward(self.static_padding(x))


class Reflecting(nn.Conv2d):
    def forward(self, x):
        return super().forward(functional.pad(x, (1, 1, 1, 1), "reflect"))


class Causal(nn.Conv1d):
    def forward(self, x):
        reach = self.dilation[0] * (self.kernel_size[0] - 1)
        return super().forward(functional.pad(x, (reach, 0)))


class EqualRate(nn.Module):
    """As in progressive GANs: around a layer; it scales the input and adds a bias of its own."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        return self.conv(0.3 * x) + self.bias[:, None, None]


class EqualRateLinear(nn.Module):
    """As in StyleGAN: no layer of torch inside."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        return functional.linear(x, 0.1 * self.weight, 2 * self.bias)


class Affine(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(1, channels, 1, 1) + 0.5)
        self.shift = nn.Parameter(torch.randn(1, channels, 1, 1))

    def forward(self, x):
        return self.scale * x + self.shift


class DetectronNorm(nn.Module):
    """As detectron2's FrozenBatchNorm2d: four buffers."""

    def __init__(self, channels):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(channels) + 0.5)

    def forward(self, x):
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        bias = self.bias - self.running_mean * scale
        return x * scale.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)


def frozen_norm(channels):
    norm = FrozenBatchNorm2d(channels)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 1.5)
    return norm


def masked():
    """A convolution with torch's own mask."""
    return utils.prune.random_unstructured(nn.Conv2d(6, 7, 3), "weight", 0.5)


def by_a_hook():
    """A convolution whose weight a hook of the user's own computes."""
    conv = nn.Conv2d(6, 7, 3)
    conv.raw = nn.Parameter(conv.weight.detach())
    del conv.weight
    conv.register_forward_pre_hook(lambda layer, _: setattr(layer, "weight", 2 * layer.raw))
    return conv


def fake_quantised():
    conv = nn.Conv2d(6, 7, 3)
    conv.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    model = quantization.prepare_qat(nn.Sequential(conv).train())
    for _ in range(3):
        model(torch.randn(4, 6, 8, 8))
    return model.apply(quantization.disable_observer)[0]


IMAGE, SIGNAL, VIDEO, ROW = (2, 6, 9, 8), (2, 6, 9), (2, 6, 4, 5, 6), (3, 6)
# what it is: how to build it, the shape of an input, and the class of the plain layer
PLAIN = {
    "standardised": (lambda: Standardised(6, 7, 3, 2, 1), IMAGE, "Conv2d"),
    "standardised, torch's same": (lambda: Standardised(6, 7, 4, padding="same"), IMAGE, "Conv2d"),
    "standardised, circular": (
        lambda: Standardised(6, 7, 3, padding=1, padding_mode="circular"), IMAGE, "Conv2d",
    ),
    "standardised, groups": (lambda: Standardised(6, 8, 3, groups=2), IMAGE, "Conv2d"),
    "scaled": (lambda: Scaled(6, 7, 3, bias=False), IMAGE, "Conv2d"),
    "same": (lambda: Same(6, 7, 3), IMAGE, "Conv2d"),
    "same, stride": (lambda: Same(6, 7, 5, 2, dilation=2), IMAGE, "SamePaddedConv2d"),
    "standardised, same": (lambda: StandardisedSame(6, 7, 3, 2), IMAGE, "SamePaddedConv2d"),
    "static same": (lambda: StaticSame(6, 7, 3, 2), IMAGE, "Conv2d"),
    "reflecting": (lambda: Reflecting(6, 7, 3), IMAGE, "Conv2d"),
    "causal": (lambda: Causal(6, 7, 3, dilation=2), SIGNAL, "Conv1d"),
    "equal rate": (lambda: EqualRate(6, 7), IMAGE, "Conv2d"),
    "equal rate, linear": (lambda: EqualRateLinear(6, 7), ROW, "Linear"),
    "affine": (lambda: Affine(6), IMAGE, "FixedNorm"),
    "frozen norm": (lambda: frozen_norm(6), IMAGE, "FixedNorm"),
    "detectron's norm": (lambda: DetectronNorm(6), IMAGE, "FixedNorm"),
    "masked": (masked, IMAGE, "Conv2d"),
    "by a hook": (by_a_hook, IMAGE, "Conv2d"),
    "fake-quantised": (fake_quantised, IMAGE, "Conv2d"),
    "old weight norm": (lambda: utils.weight_norm(nn.Conv2d(6, 7, 3)), IMAGE, "Conv2d"),
    "old spectral norm": (lambda: utils.spectral_norm(nn.Linear(6, 7)), ROW, "Linear"),
    "weight norm, 1d": (lambda: parametrizations.weight_norm(nn.Conv1d(6, 7, 3)), SIGNAL, "Conv1d"),
    "weight norm, 3d": (lambda: utils.weight_norm(nn.Conv3d(6, 7, 3)), VIDEO, "Conv3d"),
    "weight norm, transposed": (
        lambda: parametrizations.weight_norm(nn.ConvTranspose2d(6, 7, 3, 2)), IMAGE,
        "ConvTranspose2d",
    ),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Conv2d(6, 7, 3)), IMAGE, "Conv2d"),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(6, 6)), ROW, "Linear"),
}  # fmt: skip


class Conditional(nn.Conv2d):
    """Its weight depends on the images."""

    def forward(self, x):
        return functional.conv2d(x, self.weight * x.mean(), self.bias)


class ResponseNorm(nn.Module):
    """As in ConvNeXt V2: a fresh one, with zeros, gives what it gets."""

    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x):
        size = x.norm(dim=(2, 3), keepdim=True)
        return x + self.shift + self.scale * x * size / (size.mean(1, keepdim=True) + 1e-6)


class LastAxis(nn.Module):
    """A layer scale on the last axis, not on the channels."""

    def __init__(self, channels):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(channels))

    def forward(self, x):
        return x * self.gamma


class Curved(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.slope = nn.Parameter(torch.rand(channels, 1, 1))

    def forward(self, x):
        return torch.minimum(self.slope * x, torch.tensor(6.0, dtype=x.dtype))


class Renamed(nn.Conv2d):
    """A subclass that adds nothing."""

    def forward(self, x):
        return super().forward(x)


OTHERS = {
    "torch's own": lambda: nn.Conv2d(6, 7, 3),
    "batch norm": lambda: nn.BatchNorm2d(6),
    "renamed": lambda: Renamed(6, 7, 3),
    "conditional": lambda: Conditional(6, 7, 3),
    "response norm": lambda: ResponseNorm(6),
    "last axis": lambda: LastAxis(8),
    "curved": lambda: Curved(6),
}
