"""Weights and layers that are used more than once, and weights that may not learn."""

import torch
from torch import nn

from structures.registry import FOLLOW, PROOF, Net, structure

TIED = ("tied", "share", "twice", "same", "several", *PROOF, *FOLLOW)


class Four(Net):
    def __init__(self, middle=8):
        super().__init__(
            stem=nn.Conv2d(3, 8, 3, padding=1), first=nn.Conv2d(8, middle, 3, padding=1),
            second=nn.Conv2d(middle, 8, 3, padding=1), after=nn.Conv2d(8, 6, 1),
            head=nn.Linear(6, 4),
        )  # fmt: skip

    def forward(self, x):
        x = self.second(self.first(self.stem(x).relu()).relu()).relu()
        return self.head(self.after(x).relu().mean((2, 3)))


@structure("after", words={"stem": TIED, "first": TIED, "second": TIED})
class tied_weights(Four):
    def __init__(self):
        super().__init__()
        self.second.weight = self.first.weight


@structure("after", words={"first": TIED, "second": TIED})
class tied_biases(Four):
    def __init__(self):
        super().__init__()
        self.second.bias = self.first.bias


@structure("", words={"encode": TIED}, example=lambda: torch.randn(2, 6))
class tied_autoencoder(Net):
    """A weight that one layer reads as it is and a function reads transposed."""

    def __init__(self):
        super().__init__(encode=nn.Linear(6, 12), head=nn.Linear(6, 4))

    def forward(self, x):
        hidden = self.encode(x).relu()
        return self.head((hidden @ self.encode.weight).relu())


@structure("after", words={"stem": TIED, "first": TIED})
class shared_layer(Four):
    """One convolution runs twice in a row."""

    def forward(self, x):
        x = self.first(self.first(self.stem(x).relu()).relu()).relu()
        return self.head(self.after(self.second(x).relu()).relu().mean((2, 3)))


@structure("after", words={"stem": TIED, "first": TIED})
class shared_layer_on_two_branches(Four):
    def forward(self, x):
        x = self.stem(x).relu()
        x = self.first(x) + self.first(x.flip(3))
        return self.head(self.after(self.second(x).relu()).relu().mean((2, 3)))


@structure("after", words={"stem": TIED, "first": TIED, "second": TIED})
class shared_block(Net):
    """One block of two layers runs twice, so its end feeds its beginning."""

    def __init__(self):
        super().__init__(
            stem=nn.Conv2d(3, 8, 3, padding=1), first=nn.Conv2d(8, 6, 1),
            second=nn.Conv2d(6, 8, 1), after=nn.Conv2d(8, 6, 1), head=nn.Linear(6, 4),
        )  # fmt: skip

    def forward(self, x):
        x = self.stem(x)
        for _ in range(2):
            x = self.second(self.first(x.relu()).relu())
        return self.head(self.after(x).relu().mean((2, 3)))


@structure("after", words={"stem": TIED, "first": TIED})
class shared_norm(Four):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        x = self.norm(self.first(self.norm(self.stem(x)).relu())).relu()
        return self.head(self.after(self.second(x).relu()).relu().mean((2, 3)))


@structure("stem first second after")
class shared_activation(Four):
    def __init__(self):
        super().__init__(6)
        self.act = nn.PReLU()

    def forward(self, x):
        x = self.act(self.second(self.act(self.first(self.act(self.stem(x))))))
        return self.head(self.act(self.after(x)).mean((2, 3)))


@structure("stem first second after")
class one_layer_under_two_names(Four):
    def __init__(self):
        super().__init__(6)
        self.alias = self.first


@structure("stem first second after")
class frozen_parameters(Four):
    def __init__(self):
        super().__init__(6)
        for layer in (self.stem, self.second):
            layer.requires_grad_(False)


@structure("stem first second after")
class all_parameters_frozen(Four):
    def __init__(self):
        super().__init__(6)
        self.requires_grad_(False)


@structure("stem first second after")
class weights_in_channels_last(Four):
    def __init__(self):
        super().__init__(6)
        self.to(memory_format=torch.channels_last)
