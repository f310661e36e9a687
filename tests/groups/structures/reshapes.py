"""Where channels change place, or their number is written into the code."""

import torch
from torch import nn
from torch.nn import functional

from structures.registry import FOLLOW, PROOF, Net, structure

FIXED = ("fixed", "shape", "slice", "split", "view", "size", "cut", *PROOF, *FOLLOW)
MOVED = ("shuffle", "reshape", "pixel", "across", "mix", *FIXED)


class Reshaped(Net):
    def __init__(self, width=8, read=8, pixels=1):
        super().__init__(
            stem=nn.Conv2d(3, width, 3, padding=1), after=nn.Conv2d(read, 6, 1),
            hidden=nn.Linear(6 * pixels, 10), head=nn.Linear(10, 4),
        )  # fmt: skip

    def forward(self, x):
        x = self.after(self.change(self.stem(x).relu())).relu()
        return self.head(self.hidden(x.mean((2, 3))).relu())


@structure("stem after hidden")
class channel_shuffle(Reshaped):
    def change(self, x):
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


@structure("stem after hidden")
class channel_shuffle_as_a_layer(Reshaped):
    def __init__(self):
        super().__init__()
        self.change = nn.ChannelShuffle(4)


@structure("stem after hidden")
class pixel_shuffle(Reshaped):
    def __init__(self):
        super().__init__(16, 4)
        self.change = nn.PixelShuffle(2)


@structure("after hidden", words={"stem": MOVED})
class pixel_unshuffle(Reshaped):
    def __init__(self):
        super().__init__(4, 16)
        self.change = nn.PixelUnshuffle(2)


@structure("after hidden", words={"stem": FIXED})
class channels_padded(Reshaped):
    def __init__(self):
        super().__init__(8, 12)

    def change(self, x):
        return functional.pad(x, (0, 0, 0, 0, 2, 2))


@structure("after hidden", words={"stem": MOVED})
class channels_flipped(Reshaped):
    def change(self, x):
        return x.flip(1)


@structure("after hidden", words={"stem": MOVED})
class channels_rolled(Reshaped):
    def change(self, x):
        return x.roll(3, 1)


@structure("after hidden", words={"stem": FIXED})
class sliced(Reshaped):
    def __init__(self):
        super().__init__(12, 8)

    def change(self, x):
        return x[:, :8]


@structure("after hidden", words={"stem": FIXED})
class every_second_channel(Reshaped):
    def __init__(self):
        super().__init__(12, 6)

    def change(self, x):
        return x[:, ::2]


@structure("after hidden", words={"stem": FIXED})
class split_at_fixed_places(Reshaped):
    def change(self, x):
        first, second = x.split([3, 5], 1)
        return torch.cat([second.sigmoid(), first], 1)


@structure("stem after hidden")
class chunk(Reshaped):
    def change(self, x):
        first, second = torch.chunk(x, 2, 1)
        return torch.cat([first.sigmoid(), second], 1)


@structure("stem after hidden")
class halves_multiplied(Reshaped):
    """A gated linear unit: channel i goes with channel i + 4."""

    def __init__(self):
        super().__init__(8, 4)
        self.change = nn.GLU(1)


@structure("hidden", words={"stem": FIXED, "after": FIXED})
class view_with_a_number(Reshaped):
    def __init__(self):
        super().__init__(8, 8, 64)

    def forward(self, x):
        x = self.after(self.stem(x).relu()).relu().view(-1, 6 * 64)
        return self.head(self.hidden(x).relu())


@structure("stem after hidden")
class flatten_then_linear(Reshaped):
    def __init__(self):
        super().__init__(8, 8, 64)

    def forward(self, x):
        x = self.after(self.stem(x).relu()).relu()
        return self.head(self.hidden(x.flatten(1)).relu())


@structure("stem after hidden")
class adaptive_pool_then_linear(Reshaped):
    def __init__(self):
        super().__init__(8, 8, 4)

    def forward(self, x):
        x = functional.adaptive_avg_pool2d(self.after(self.stem(x).relu()), 2)
        return self.head(self.hidden(torch.flatten(x, 1)).relu())


@structure("stem", words={"after": MOVED})
class channels_last_then_flatten(Reshaped):
    """Pixel by pixel: every channel stands at 64 places of the vector, 6 apart."""

    def __init__(self):
        super().__init__(8, 8, 64)

    def forward(self, x):
        x = self.after(self.stem(x).relu()).permute(0, 2, 3, 1)
        return self.head(self.hidden(x.flatten(1)).relu())


@structure("after hidden", words={"stem": ("sum", "mean", "across", *FIXED)})
class mean_over_channels(Reshaped):
    def change(self, x):
        return x * x.mean(1, keepdim=True).sigmoid()


@structure("stem after hidden")
class maximum_over_channels(Reshaped):
    def __init__(self):
        super().__init__(8, 4)

    def change(self, x):
        return x.view(x.shape[0], 2, -1, *x.shape[2:]).amax(1)


@structure("after hidden", words={"stem": ("einsum", "across", *FIXED)})
class einsum_over_channels(Reshaped):
    def __init__(self):
        super().__init__()
        self.mix = nn.Parameter(torch.randn(8, 8))

    def change(self, x):
        return torch.einsum("nchw,cd->ndhw", x, self.mix)
