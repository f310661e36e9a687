"""Convolutions of every kind."""

import torch
from torch import nn

from structures.registry import OUTPUT, PROOF, Net, structure

GROUPED = ("group", "once", *PROOF)


class Chain(Net):
    def __init__(self, middle, width=8, read=8):
        super().__init__(
            stem=nn.Conv2d(3, width, 3, padding=1), middle=middle, after=nn.Conv2d(read, 6, 1),
            head=nn.Linear(6, 4),
        )  # fmt: skip

    def forward(self, x):
        return self.head(self.after(self.middle(self.stem(x).relu()).relu()).mean((2, 3)))


@structure("stem middle after")
def bottleneck():
    return Chain(nn.Conv2d(8, 4, 1), read=4)


@structure("stem middle after")
def dilated():
    return Chain(nn.Conv2d(8, 8, 3, dilation=2, stride=2, padding=1))


@structure("stem middle after")
def depthwise():
    return Chain(nn.Conv2d(8, 8, 3, padding=1, groups=8))


@structure("after", words={"stem": GROUPED, "middle": GROUPED})
def depthwise_with_two_outputs():
    return Chain(nn.Conv2d(8, 16, 3, padding=1, groups=8), read=16)


@structure("stem middle after")
def grouped():
    return Chain(nn.Conv2d(8, 12, 3, padding=1, groups=2), read=12)


@structure("stem middle after")
def transposed():
    return Chain(nn.ConvTranspose2d(8, 6, 2, stride=2), read=6)


@structure("after", words={"stem": GROUPED, "middle": GROUPED})
def transposed_grouped():
    return Chain(nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2), read=6)


@structure("after", words={"stem": GROUPED, "middle": GROUPED})
def transposed_depthwise():
    return Chain(nn.ConvTranspose2d(8, 8, 2, stride=2, groups=8))


@structure("stem middle.0 middle.2 after")
def two_grouped_in_a_row():
    return Chain(
        nn.Sequential(nn.Conv2d(8, 12, 1, groups=2), nn.ReLU(), nn.Conv2d(12, 8, 1, groups=4))
    )


@structure("after", words={"stem": GROUPED, "three": GROUPED, "two": GROUPED})
class grouped_with_different_patterns(Net):
    """One sum feeds convolutions of 2 and of 3 groups: units must suit both."""

    def __init__(self):
        super().__init__(
            stem=nn.Conv2d(3, 12, 3, padding=1), two=nn.Conv2d(12, 8, 1, groups=2),
            three=nn.Conv2d(12, 6, 1, groups=3), after=nn.Conv2d(8, 6, 1), head=nn.Linear(6, 4),
        )  # fmt: skip

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head((self.after(self.two(x)) * self.three(x)).mean((2, 3)))


@structure("after", words={"left": GROUPED, "right": GROUPED, "grouped": GROUPED})
class grouped_reads_a_concatenation(Net):
    def __init__(self):
        super().__init__(
            left=nn.Conv2d(3, 6, 1), right=nn.Conv2d(3, 2, 1),
            grouped=nn.Conv2d(8, 8, 1, groups=2), after=nn.Conv2d(8, 6, 1), head=nn.Linear(6, 4),
        )  # fmt: skip

    def forward(self, x):
        x = torch.cat([self.left(x), self.right(x)], 1).relu()
        return self.head(self.after(self.grouped(x).relu()).mean((2, 3)))


@structure("stem.0 stem.1.0 stem.1.2")
class nested_sequential(Net):
    def __init__(self):
        inner = nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU(inplace=True), nn.Conv2d(6, 5, 1))
        super().__init__(
            stem=nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(*inner), nn.BatchNorm2d(5)),
            head=nn.Linear(5, 4),
        )

    def forward(self, x):
        return self.head(self.stem(x).mean((2, 3)))


def _volume():
    return torch.randn(2, 3, 4, 4, 4)


@structure("stem", example=_volume)
class three_dimensions(Net):
    def __init__(self):
        super().__init__(stem=nn.Conv3d(3, 8, 3), norm=nn.BatchNorm3d(8), head=nn.Linear(8, 4))

    def forward(self, x):
        return self.head(self.norm(self.stem(x)).relu().mean((2, 3, 4)))


def _series():
    return torch.randn(2, 3, 16)


@structure("stem middle", example=_series)
class one_dimension(Net):
    def __init__(self):
        super().__init__(
            stem=nn.Conv1d(3, 8, 3), middle=nn.Conv1d(8, 6, 3, dilation=2),
            norm=nn.BatchNorm1d(6), head=nn.Linear(6, 4),
        )  # fmt: skip

    def forward(self, x):
        return self.head(self.norm(self.middle(self.stem(x).relu())).relu().mean(2))


@structure("stem middle after")
def padding_by_reflection():
    return Chain(nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"))


@structure("stem after", never={"middle": ("once", "one", "single"), "head": OUTPUT})
def one_channel():
    return Chain(nn.Conv2d(8, 1, 1), read=1)
