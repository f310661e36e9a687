"""What a traced pass does not show: functions, branches, code that counts channels."""

import torch
from torch import nn
from torch.nn import functional

from structures.registry import FOLLOW, OUTPUT, PROOF, Net, structure

UNSEEN = ("parameter", "branch", "function", "data", "depend", "run", "pass", *FOLLOW, *PROOF)


class Plain(Net):
    def __init__(self, **more):
        super().__init__(
            stem=nn.Conv2d(3, 8, 3, padding=1), after=nn.Conv2d(8, 6, 1), last=nn.Conv2d(6, 9, 1),
            head=nn.Linear(9, 4), **more,
        )  # fmt: skip

    def end(self, x):
        return self.head(self.last(self.after(x).relu()).relu().mean((2, 3)))


@structure("after last", words={"stem": UNSEEN, "other": UNSEEN})
class branch_on_data(Plain):
    """Which convolution runs depends on the numbers."""

    def __init__(self):
        super().__init__(other=nn.Conv2d(8, 8, 1))

    def forward(self, x):
        x = self.stem(x).relu()
        return self.end(self.other(x).relu() if x.mean() > 1e6 else x)


@structure("after last", words={"stem": UNSEEN})
class functional_convolution(Plain):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8, 3, 3))

    def forward(self, x):
        x = functional.conv2d(self.stem(x).relu(), self.weight, padding=1)
        return self.end(x.relu())


@structure("last", words={"stem": UNSEEN, "after": UNSEEN})
class weights_used_by_a_function(Plain):
    """The layer is there, but only its weights are used."""

    def forward(self, x):
        x = self.stem(x).relu()
        x = functional.conv2d(x, self.after.weight, self.after.bias)
        return self.head(self.last(x.relu()).relu().mean((2, 3)))


@structure("after last", words={"stem": UNSEEN})
class weights_changed_on_the_way(Plain):
    """Weight standardisation, written by hand."""

    def forward(self, x):
        weight = self.stem.weight - self.stem.weight.mean((1, 2, 3), keepdim=True)
        return self.end(functional.conv2d(x, weight, self.stem.bias, padding=1).relu())


@structure("stem after last")
class channels_asked_of_the_tensor(Plain):
    def forward(self, x):
        x = self.stem(x).relu()
        return self.end(x.reshape(x.shape[0], x.shape[1], -1, 2).mean(-1, keepdim=True))


@structure("after last", words={"stem": UNSEEN})
class scaled_by_the_number_of_channels(Plain):
    """Masked and slim differ, because the code counts channels."""

    def forward(self, x):
        x = self.stem(x).relu()
        return self.end(x / x.shape[1] ** 0.5)


@structure("after last", words={"stem": UNSEEN})
class indexed_by_a_buffer(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.randperm(8))

    def forward(self, x):
        return self.end(self.stem(x).relu().index_select(1, self.order))


@structure("after last", words={"stem": UNSEEN})
class detached(Plain):
    """The way back of gradients is cut behind the stem."""

    def forward(self, x):
        return self.end(self.stem(x).relu().detach())


@structure("after last", words={"stem": UNSEEN})
class computed_without_gradients(Plain):
    def forward(self, x):
        with torch.no_grad():
            x = self.stem(x).relu()
        return self.end(x)


@structure("after last", words={"stem": UNSEEN})
class layer_that_no_module_knows(Plain):
    """It stands in a plain list, and keeps its shape."""

    def __init__(self):
        super().__init__()
        self.hidden_away = [nn.Conv2d(8, 8, 1).requires_grad_(False)]

    def forward(self, x):
        layer = self.hidden_away[0].to(x.dtype)
        return self.end(layer(self.stem(x).relu()))


@structure("after last", words={"stem": UNSEEN})
class hook_that_changes_channels(Plain):
    def __init__(self):
        super().__init__()
        self.stem.register_forward_hook(lambda module, args, output: output.flip(1))

    def forward(self, x):
        return self.end(self.stem(x).relu())


@structure("after last", words={"stem": UNSEEN, "experts.0": UNSEEN, "experts.1": UNSEEN})
class experts_chosen_by_the_input(Plain):
    """Each image goes through one of two convolutions."""

    def __init__(self):
        experts = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(2))
        super().__init__(experts=experts)

    def forward(self, x):
        x = self.stem(x).relu()
        images = [self.experts[int(image.mean() > 0.3)](image[None]) for image in x]
        return self.end(torch.cat(images).relu())


@structure("", never={"stem": OUTPUT})
class one_layer_only(Net):
    def __init__(self):
        super().__init__(stem=nn.Conv2d(3, 8, 3))

    def forward(self, x):
        return self.stem(x).relu().mean((2, 3))
