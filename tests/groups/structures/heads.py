"""Outputs: several, in dicts, of convolutions, in train mode only."""

import torch
from torch import nn
from torch.nn import functional

from structures.registry import FOLLOW, OUTPUT, PROOF, Net, structure


class Trunk(Net):
    def __init__(self, **heads):
        super().__init__(
            stem=nn.Conv2d(3, 8, 3, padding=1), after=nn.Conv2d(8, 6, 3, padding=1), **heads
        )

    def features(self, x):
        return self.after(self.stem(x).relu()).relu()


class TwoLinearHeads(Trunk):
    def __init__(self):
        super().__init__(head=nn.Linear(6, 4), other=nn.Linear(6, 3))


@structure("stem after", never={"head": OUTPUT, "other": OUTPUT})
class several_heads(TwoLinearHeads):
    def forward(self, x):
        x = self.features(x).mean((2, 3))
        return self.head(x), self.other(x)


@structure("stem after", never={"head": OUTPUT, "other": OUTPUT})
class heads_in_a_dict(TwoLinearHeads):
    def forward(self, x):
        x = self.features(x).mean((2, 3))
        return {"class": self.head(x), "box": [self.other(x)]}


@structure("stem", never={"head": OUTPUT, "after": OUTPUT})
class features_beside_the_output(Trunk):
    """What a hidden layer makes is an output, too."""

    def __init__(self):
        super().__init__(head=nn.Linear(6, 4))

    def forward(self, x):
        x = self.features(x)
        return self.head(x.mean((2, 3))), x


@structure("stem after", never={"head": OUTPUT})
class convolution_as_head(Trunk):
    def __init__(self):
        super().__init__(head=nn.Conv2d(6, 4, 1))

    def forward(self, x):
        return functional.interpolate(self.head(self.features(x)), scale_factor=2)


@structure("stem after", never={"head": OUTPUT, "other": OUTPUT})
class sum_of_two_heads(Trunk):
    def __init__(self):
        super().__init__(head=nn.Linear(6, 4), other=nn.Conv2d(8, 4, 1))

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(self.after(x).relu().mean((2, 3))) + self.other(x).mean((2, 3))


@structure("stem after")
class input_added_to_the_output(Trunk):
    def __init__(self):
        super().__init__(head=nn.Conv2d(6, 3, 1))

    def forward(self, x):
        return x + self.head(self.features(x))


@structure("after", words={"stem": ("train", "aux", *FOLLOW, *PROOF)})
class head_in_train_mode_only(Trunk):
    def __init__(self):
        super().__init__(head=nn.Linear(6, 4), aux=nn.Linear(8, 4))

    def forward(self, x):
        x = self.stem(x).relu()
        y = self.head(self.after(x).relu().mean((2, 3)))
        return (y, self.aux(x.mean((2, 3)))) if self.training else y


@structure("stem after", never={"head": OUTPUT, "unused": FOLLOW})
class layer_that_never_runs(Trunk):
    def __init__(self):
        super().__init__(head=nn.Linear(6, 4), unused=nn.Conv2d(8, 8, 1))

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


@structure("stem after", example=lambda: (torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)))
class two_inputs(Trunk):
    def __init__(self):
        super().__init__(head=nn.Linear(6, 4))

    def forward(self, x, y):
        return self.head(self.features(x * y.sigmoid()).mean((2, 3)))
