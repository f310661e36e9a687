"""Norms: some work channel by channel, some across channels, some keep a number for each."""

import torch
from torch import nn

from structures.registry import FOLLOW, OUTPUT, PROOF, Net, structure

ACROSS = ("norm", "across", *PROOF)


class Normed(Net):
    def __init__(self, norm):
        super().__init__(
            stem=nn.Conv2d(3, 8, 3, padding=1), norm=norm, after=nn.Conv2d(8, 6, 1),
            head=nn.Linear(6, 4),
        )  # fmt: skip

    def forward(self, x):
        return self.head(self.after(self.norm(self.stem(x)).relu()).mean((2, 3)))


@structure("stem after")
def group_norm():
    return Normed(nn.GroupNorm(2, 8))


@structure("after", never={"stem": ("groupnorm", "all channels together"), "head": OUTPUT})
def group_norm_of_one_group():
    return Normed(nn.GroupNorm(1, 8))


@structure("stem after")
def group_norm_of_single_channels():
    return Normed(nn.GroupNorm(8, 8))


@structure("after", words={"stem": ACROSS})
def layer_norm_over_images():
    return Normed(nn.LayerNorm([8, 8, 8]))


@structure("after", words={"stem": ACROSS})
class layer_norm_over_channels(Normed):
    def __init__(self):
        super().__init__(nn.LayerNorm(8))

    def forward(self, x):
        x = self.norm(self.stem(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(self.after(x).mean((2, 3)))


@structure("after", words={"stem": ACROSS})
class layer_norm_over_space(Normed):
    """Over height and width only: every channel for itself."""

    def __init__(self):
        super().__init__(nn.LayerNorm([8, 8]))


@structure("after", words={"stem": ACROSS})
def instance_norm():
    return Normed(nn.InstanceNorm2d(8))


@structure("after", words={"stem": ACROSS})
def instance_norm_with_weights():
    return Normed(nn.InstanceNorm2d(8, affine=True))


@structure("after", words={"stem": ACROSS})
def instance_norm_with_running_statistics():
    return Normed(nn.InstanceNorm2d(8, affine=True, track_running_stats=True))


@structure("stem after")
def batch_norm():
    return Normed(nn.BatchNorm2d(8))


@structure("after", words={"stem": ACROSS})
def batch_norm_without_statistics():
    return Normed(nn.BatchNorm2d(8, track_running_stats=False))


@structure("after", words={"stem": ACROSS})
def batch_norm_without_weights():
    return Normed(nn.BatchNorm2d(8, affine=False))


@structure("after", words={"stem": ("response", "across", *PROOF)})
def local_response_norm():
    return Normed(nn.LocalResponseNorm(3))


@structure("stem inner")
class batch_norm_before_convolution(Net):
    """Pre-activation: the norm reads a sum that others read as well."""

    def __init__(self):
        super().__init__(
            stem=nn.Conv2d(3, 8, 3, padding=1), norm1=nn.BatchNorm2d(8),
            inner=nn.Conv2d(8, 6, 3, padding=1, bias=False), norm2=nn.BatchNorm2d(6),
            outer=nn.Conv2d(6, 8, 3, padding=1), last=nn.BatchNorm2d(8), head=nn.Linear(8, 4),
        )  # fmt: skip

    def forward(self, x):
        x = self.stem(x)
        x = x + self.outer(self.norm2(self.inner(self.norm1(x).relu())).relu())
        return self.head(self.last(x).relu().mean((2, 3)))


@structure("after", words={"stem": ("weight", "parametri", "norm", *PROOF)})
class weight_norm(Normed):
    def __init__(self):
        super().__init__(nn.Identity())
        self.stem = nn.utils.parametrizations.weight_norm(self.stem)


@structure("after", words={"stem": ("spectral", "parametri", "norm", *PROOF)})
class spectral_norm(Normed):
    def __init__(self):
        super().__init__(nn.Identity())
        self.stem = nn.utils.parametrizations.spectral_norm(self.stem)


class StandardisedConv2d(nn.Conv2d):
    def forward(self, x):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        deviation = self.weight.std((1, 2, 3), keepdim=True)
        return self._conv_forward(x, (self.weight - mean) / (deviation + 1e-5), self.bias)


@structure("", words=dict.fromkeys(["stem", "after"], ("weight", "standardi", *PROOF)))
class weights_standardised(Normed):
    """Each layer computes its weights from those of all channels that it reads."""

    def __init__(self):
        super().__init__(nn.BatchNorm2d(8))
        self.after = StandardisedConv2d(8, 6, 1)


@structure("after", words={"stem": ("buffer", "each", "fixed", *FOLLOW)})
class buffer_for_each_channel(Normed):
    def __init__(self):
        super().__init__(nn.Identity())
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 8).view(8, 1, 1))

    def forward(self, x):
        return self.head(self.after((self.stem(x) * self.scale).relu()).mean((2, 3)))


@structure("after", words={"stem": ("softmax", "across", *PROOF)})
class softmax_over_channels(Normed):
    def __init__(self):
        super().__init__(nn.Softmax(1))
