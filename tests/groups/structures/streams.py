"""Channels that join in odd ways: broadcast sums, products, matrices, copies."""

import torch
from torch import nn
from torch.nn import functional

from structures.registry import FOLLOW, PROOF, Net, structure

JOINED = ("broadcast", "sum", "across", "fixed", *PROOF, *FOLLOW)


class Pair(Net):
    def __init__(self, left=8, right=8, read=8):
        super().__init__(
            left=nn.Conv2d(3, left, 3, padding=1), right=nn.Conv2d(3, right, 3, padding=1),
            after=nn.Conv2d(read, 6, 1), head=nn.Linear(6, 4),
        )  # fmt: skip

    def forward(self, x):
        x = self.join(self.left(x).relu(), self.right(x).relu())
        return self.head(self.after(x).relu().mean((2, 3)))


@structure("left right after")
class difference(Pair):
    def join(self, left, right):
        return left - 2 * right


@structure("left right after")
class division(Pair):
    def join(self, left, right):
        return left / (1 + right)


@structure("left right after")
class elementwise_maximum(Pair):
    def join(self, left, right):
        return torch.maximum(left, right)


@structure("left after", words={"right": JOINED})
class broadcast_sum(Pair):
    """The right side has one channel, which is added to all."""

    def __init__(self):
        super().__init__(8, 1)

    def join(self, left, right):
        return left + right


@structure("after", words={"left": JOINED, "right": JOINED})
class padded_shortcut(Pair):
    """The shorter side is filled up with channels of zeros."""

    def __init__(self):
        super().__init__(8, 6)

    def join(self, left, right):
        return left + functional.pad(right, (0, 0, 0, 0, 0, 2))


@structure("after", words={"left": JOINED, "right": JOINED})
class shortcut_padded_by_concatenation(Pair):
    def __init__(self):
        super().__init__(8, 6)

    def join(self, left, right):
        return left + torch.cat([right, torch.zeros_like(right[:, :2])], 1)


@structure("after", words={"left": JOINED, "right": JOINED})
class interleaved(Pair):
    def __init__(self):
        super().__init__(4, 4)

    def join(self, left, right):
        return torch.stack([left, right], 2).flatten(1, 2)


@structure("left right after")
class stacked_and_summed(Pair):
    def join(self, left, right):
        return torch.stack([left, right]).sum(0)


@structure("", words={"left": JOINED, "right": JOINED, "after": JOINED})
class bilinear_pooling(Pair):
    """Products of all pairs of channels: the linear layer reads a matrix of them."""

    def __init__(self):
        super().__init__(4, 4)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        left, right = self.left(x).flatten(2), self.right(x).flatten(2)
        return self.head((left @ right.transpose(1, 2)).flatten(1))


@structure("left right after")
class sum_over_both_and_concatenation(Pair):
    """A channel of the sum stands at two places of what is read."""

    def __init__(self):
        super().__init__(6, 6, 12)

    def join(self, left, right):
        return torch.cat([left + right, left], 1)


@structure("left after", words={"right": JOINED})
class attention_map_over_space(Pair):
    """A map of one channel weighs the places, by a product of matrices."""

    def __init__(self):
        super().__init__(8, 1)

    def join(self, left, right):
        weights = right.flatten(2).softmax(-1).transpose(1, 2)
        return (left.flatten(2) @ weights).unsqueeze(-1)


@structure("after", words={"left": JOINED, "right": JOINED})
class cosine_of_channels(Pair):
    def join(self, left, right):
        return functional.normalize(left, dim=1) + functional.normalize(right, dim=1)


@structure("left right after")
class pooled_and_resized(Pair):
    def join(self, left, right):
        small = functional.avg_pool2d(left, 2)
        return functional.interpolate(small, size=right.shape[2:], mode="nearest") + right


@structure("after", words={"left": JOINED, "right": JOINED})
class written_into_a_buffer_of_fixed_size(Pair):
    def __init__(self):
        super().__init__(5, 3)

    def join(self, left, right):
        both = left.new_zeros(len(left), 8, *left.shape[2:])
        both[:, :5] = left
        both[:, 5:] = right
        return both
