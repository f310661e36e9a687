"""Parts of equal size: channels at the same place of each part go together, at any width."""

import torch
from torch import nn
from torch.nn import functional

from structures.norms import Normed
from structures.registry import FOLLOW, PROOF, Net, structure
from structures.reshapes import FIXED, Reshaped


@structure("stem after hidden")
class gate_by_a_half(Reshaped):
    def __init__(self):
        super().__init__(8, 4)

    def change(self, x):
        value, gate = x.chunk(2, 1)
        return value * gate.sigmoid()


@structure("stem after hidden")
class maximum_of_halves(Reshaped):
    def __init__(self):
        super().__init__(8, 4)

    def change(self, x):
        half = x.shape[1] // 2
        return torch.maximum(x[:, :half], x[:, half:])


@structure("stem after hidden")
class maximum_of_neighbours(Reshaped):
    """Channels 2i and 2i + 1 go together."""

    def __init__(self):
        super().__init__(8, 4)

    def change(self, x):
        return x.unflatten(1, (-1, 2)).amax(2)


@structure("stem after hidden")
class three_parts(Reshaped):
    def __init__(self):
        super().__init__(12, 8)

    def change(self, x):
        one, two, three = x.chunk(3, 1)
        return torch.cat([three, one * two.tanh()], 1)


@structure("stem after hidden")
class four_parts_in_another_order(Reshaped):
    def change(self, x):
        return torch.cat(x.chunk(4, 1)[::-1], 1)


@structure("stem after hidden")
class difference_of_halves_of_a_linear_layer(Reshaped):
    """One position only, and of each pair only the larger one shows in the output."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(6, 24), nn.Linear(12, 4)

    def forward(self, x):
        one, other = self.hidden(self.after(self.stem(x)).mean((2, 3))).chunk(2, -1)
        return self.head(torch.maximum(one, other))


class Halved(Net):
    """A stem, a layer in halves, and layers behind."""

    def __init__(self, middle, halved, read, **more):
        super().__init__(
            stem=nn.Conv2d(3, middle, 3, padding=1), halved=nn.Conv2d(middle, halved, 1),
            after=nn.Conv2d(read, 6, 1), head=nn.Linear(6, 4), **more,
        )  # fmt: skip

    def forward(self, x):
        return self.head(self.after(self.change(self.stem(x).relu())).relu().mean((2, 3)))


@structure("stem halved after")
class gated_unit_in_a_residual_block(Halved):
    def __init__(self):
        super().__init__(8, 16, 8)

    def change(self, x):
        return x + functional.glu(self.halved(x), 1)


@structure("stem halved spatial after")
class one_half_through_a_convolution(Halved):
    """As the gated units of gMLP and of NAFNet."""

    def __init__(self):
        super().__init__(8, 12, 6, spatial=nn.Conv2d(6, 6, 3, padding=1))

    def change(self, x):
        value, gate = self.halved(x).chunk(2, 1)
        return value * self.spatial(gate)


@structure("stem halved depthwise after")
class depthwise_convolution_before_the_halves(Halved):
    def __init__(self):
        super().__init__(
            8, 12, 6, depthwise=nn.Conv2d(12, 12, 3, padding=1, groups=12), norm=nn.BatchNorm2d(12)
        )

    def change(self, x):
        one, other = self.norm(self.depthwise(self.halved(x))).chunk(2, 1)
        return functional.gelu(one) * other


@structure("stem halved first second after")
class cross_stage_partial(Halved):
    """The block of recent YOLOs: each half and each step are concatenated, with shortcuts."""

    def __init__(self):
        super().__init__(
            8, 12, 18, first=nn.Conv2d(6, 5, 3, padding=1), second=nn.Conv2d(5, 6, 3, padding=1),
            norm=nn.BatchNorm2d(12),
        )  # fmt: skip

    def change(self, x):
        parts = list(functional.silu(self.norm(self.halved(x))).chunk(2, 1))
        parts.append(parts[-1] + self.second(self.first(parts[-1]).relu()))
        return torch.cat(parts, 1)


@structure("stem halved after")
class split_by_the_width_of_the_layer(Halved):
    """The code asks the layer for its width."""

    def __init__(self):
        super().__init__(8, 12, 6)

    def change(self, x):
        one, other = self.halved(x).split(self.halved.out_channels // 2, 1)
        return torch.max(one, other)


@structure("stem after", words={"halved": FIXED})
class split_by_a_number_that_the_block_keeps(Halved):
    """As Res2Net and C2f with ``split``: the size stays, whatever the layer has."""

    def __init__(self):
        super().__init__(8, 12, 6)
        self.width = 6

    def change(self, x):
        one, other = self.halved(x).split(self.width, 1)
        return torch.max(one, other)


@structure("stem halved steps.0 steps.1 after")
class parts_one_after_the_other(Halved):
    """As Res2Net: each step reads its part and what the step before gave."""

    def __init__(self):
        super().__init__(8, 12, 12)
        self.steps = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def change(self, x):
        parts = list(self.halved(x).relu().chunk(3, 1))
        for number, step in enumerate(self.steps):
            parts[number + 1] = step(parts[number] + parts[number + 1]).relu()
        return torch.cat(parts, 1)


@structure("stem halved squeeze excite after")
class split_attention(Halved):
    """As ResNeSt: a softmax over two parts of a convolution in groups weighs them."""

    def __init__(self):
        super().__init__(
            8, 8, 6, grouped=nn.Conv2d(8, 12, 3, padding=1, groups=2),
            squeeze=nn.Conv2d(6, 4, 1), excite=nn.Conv2d(4, 12, 1),
        )  # fmt: skip

    def change(self, x):
        x = self.grouped(self.halved(x).relu())
        n, c, h, w = x.shape
        x = x.reshape(n, 2, c // 2, h, w)
        scale = self.excite(self.squeeze(x.sum(1).mean((2, 3), keepdim=True)).relu())
        return (x * scale.reshape(n, 2, c // 2, 1, 1).softmax(1)).sum(1)


@structure("stem halved after")
class instance_norm_behind_halves(Halved):
    def __init__(self):
        super().__init__(8, 12, 6, norm=nn.InstanceNorm2d(6, affine=True))

    def change(self, x):
        one, other = self.halved(x).chunk(2, 1)
        return self.norm(one * other)


@structure("stem halved after")
class group_norm_before_halves(Halved):
    """The norm ties neighbours, the halves what is six apart."""

    def __init__(self):
        super().__init__(8, 12, 6, norm=nn.GroupNorm(6, 12))

    def change(self, x):
        return functional.glu(self.norm(self.halved(x)), 1)


@structure("stem halved after")
class group_norm_in_a_stream(Halved):
    def __init__(self):
        super().__init__(8, 8, 8, norm=nn.GroupNorm(4, 8))

    def change(self, x):
        return x + self.norm(self.halved(x)).relu()


@structure("stem halved after")
class group_norms_of_two_sizes_in_a_stream(Halved):
    def __init__(self):
        super().__init__(12, 12, 12, norm=nn.GroupNorm(6, 12), last=nn.GroupNorm(4, 12))

    def change(self, x):
        return self.last(x + self.norm(self.halved(x)).relu())


@structure("stem halved after")
class group_norm_behind_a_convolution_in_groups(Halved):
    def __init__(self):
        super().__init__(
            8, 8, 8, grouped=nn.Conv2d(8, 8, 3, padding=1, groups=2), norm=nn.GroupNorm(4, 8)
        )

    def change(self, x):
        return self.norm(self.grouped(self.halved(x)))


@structure("stem halved after")
class group_norm_of_a_concatenation(Halved):
    """Each group of the norm lies within one of the two layers."""

    def __init__(self):
        super().__init__(8, 4, 12, norm=nn.GroupNorm(6, 12))

    def change(self, x):
        return self.norm(torch.cat([x, self.halved(x)], 1))


@structure("after", words={"stem": ("groupnorm",), "halved": ("groupnorm",)})
class group_norm_across_a_concatenation(Halved):
    def __init__(self):
        super().__init__(8, 4, 12, norm=nn.GroupNorm(2, 12))

    def change(self, x):
        return self.norm(torch.cat([x, self.halved(x)], 1))


@structure("stem after")
class group_norm_without_weights(Normed):
    def __init__(self):
        super().__init__(nn.GroupNorm(4, 8, affine=False))


@structure("after", words={"stem": ("norm", "mixed", *PROOF, *FOLLOW)})
class group_norm_by_a_function(Normed):
    """The number of groups stays; the groups would become smaller."""

    def __init__(self):
        super().__init__(nn.Identity())

    def forward(self, x):
        return self.head(self.after(functional.group_norm(self.stem(x), 4)).mean((2, 3)))
