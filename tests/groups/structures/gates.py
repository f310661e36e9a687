"""Channels that scale channels, and activations with numbers of their own."""

import torch
from torch import nn

from structures.registry import FOLLOW, PROOF, Net, structure

EACH = ("each", "parameter", "slope", *PROOF, *FOLLOW)


class Gated(Net):
    def __init__(self, act=None, **more):
        super().__init__(
            stem=nn.Conv2d(3, 8, 3, padding=1), act=act or nn.ReLU(), after=nn.Conv2d(8, 6, 1),
            head=nn.Linear(6, 4), **more,
        )  # fmt: skip

    def forward(self, x):
        return self.head(self.after(self.act(self.stem(x))).relu().mean((2, 3)))


@structure("stem after")
def prelu_of_one_slope():
    return Gated(nn.PReLU())


@structure("stem after")
def prelu_of_a_slope_each():
    return Gated(nn.PReLU(8))


@structure("stem after")
def prelu_after_a_norm():
    return Gated(nn.Sequential(nn.BatchNorm2d(8), nn.PReLU(8)))


@structure("stem after")
def activation_that_is_not_zero_at_zero():
    return Gated(nn.Sequential(nn.Sigmoid(), nn.MaxPool2d(2), nn.Hardswish()))


@structure("stem squeeze after")
class squeeze_and_excitation(Gated):
    def __init__(self):
        super().__init__(squeeze=nn.Conv2d(8, 4, 1), excite=nn.Conv2d(4, 8, 1))

    def forward(self, x):
        x = self.stem(x).relu()
        scale = self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.head(self.after(x * scale).relu().mean((2, 3)))


@structure("stem squeeze after")
class squeeze_and_excitation_by_linear_layers(Gated):
    def __init__(self):
        super().__init__(squeeze=nn.Linear(8, 4), excite=nn.Linear(4, 8))

    def forward(self, x):
        x = self.stem(x).relu()
        scale = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return self.head(self.after(x * scale[:, :, None, None]).relu().mean((2, 3)))


@structure("after", words={"stem": ("view", "fixed", *EACH), "squeeze": EACH, "excite": EACH})
class squeeze_and_excitation_with_a_view(squeeze_and_excitation_by_linear_layers):
    """The number of channels is written into the view."""

    def forward(self, x):
        x = self.stem(x).relu()
        scale = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid().view(-1, 8, 1, 1)
        return self.head(self.after(x * scale).relu().mean((2, 3)))


@structure("stem other after")
class gate_by_multiplication(Gated):
    def __init__(self):
        super().__init__(other=nn.Conv2d(3, 8, 3, padding=1))

    def forward(self, x):
        x = self.stem(x) * self.other(x).sigmoid()
        return self.head(self.after(x).relu().mean((2, 3)))


@structure("stem after", words={"gate": ("one", "once", *PROOF)})
class gate_of_one_channel(Gated):
    def __init__(self):
        super().__init__(gate=nn.Conv2d(8, 1, 1))

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(self.after(x * self.gate(x).sigmoid()).relu().mean((2, 3)))


@structure("after", words={"stem": EACH})
class scale_of_each_channel(Gated):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x):
        return self.head(self.after((self.stem(x) * self.scale).relu()).mean((2, 3)))


@structure("stem after")
class scale_of_all_channels(Gated):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(()))

    def forward(self, x):
        return self.head(self.after((self.stem(x) * self.scale + 1).relu()).mean((2, 3)))


@structure("stem after")
class in_place(Gated):
    def __init__(self):
        super().__init__(nn.ReLU(inplace=True), twin=nn.Conv2d(3, 8, 3, padding=1))

    def forward(self, x):
        y = self.stem(x)
        y += self.twin(x)
        y.mul_(2).add_(1)
        return self.head(self.after(self.act(y)).mean((2, 3)))


@structure("after", words={"stem": ("place", "slice", *EACH)})
class in_place_on_some_channels(Gated):
    def forward(self, x):
        y = self.stem(x).clone()
        y[:, :4] = y[:, :4].relu()
        return self.head(self.after(y).mean((2, 3)))


@structure("after", words={"stem": EACH})
class scale_and_shift(Gated):
    """A scale and a shift of each channel, without a layer."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(1, 8, 1, 1))
        self.shift = nn.Parameter(torch.rand(1, 8, 1, 1))

    def forward(self, x):
        return self.head(self.after((self.stem(x) * self.scale + self.shift).relu()).mean((2, 3)))


@structure("after", words={"stem": EACH})
class neighbouring_means(Gated):
    """Each channel is weighed by the means of its neighbours, as in ECA-Net."""

    def __init__(self):
        super().__init__(over_channels=nn.Conv1d(1, 1, 3, padding=1))

    def forward(self, x):
        x = self.stem(x).relu()
        weights = self.over_channels(x.mean((2, 3))[:, None])[:, 0].sigmoid()
        return self.head(self.after(x * weights[:, :, None, None]).relu().mean((2, 3)))


@structure("after", words={"stem": EACH})
class mean_and_maximum_map(Gated):
    """Each place is weighed by the mean and the maximum of its channels, as in CBAM."""

    def __init__(self):
        super().__init__(over_places=nn.Conv2d(2, 1, 3, padding=1))

    def forward(self, x):
        x = self.stem(x).relu()
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.head(self.after(x * self.over_places(seen).sigmoid()).relu().mean((2, 3)))
