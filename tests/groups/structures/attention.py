"""Transformers: heads, streams and the perceptrons between them."""

import torch
from torch import nn
from torch.nn import functional

from structures.registry import FOLLOW, PROOF, Net, structure

STREAM = ("norm", "across", "attention", "stream", "token", *PROOF, *FOLLOW)
HEADS = ("attention", "head", "shape", "view", "fixed", "inside", *PROOF, *FOLLOW)


def tokens():
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


def words_of_a_text():
    return torch.randint(11, (2, 7), generator=torch.Generator().manual_seed(0))


class WrittenByHand(nn.Module):
    """Attention of two heads with the number of heads and their size written into a view."""

    def __init__(self, width, flat=True):
        super().__init__()
        self.width, self.flat = width, flat
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        n, length, _ = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, 2, self.width // 2).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)) * (self.width // 2) ** -0.5
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, length, self.width))


class Encoder(Net):
    """A block of pre-norm attention and perceptron."""

    def __init__(self, attention):
        super().__init__(
            embed=nn.Linear(8, 8), norm1=nn.LayerNorm(8), attention=attention,
            norm2=nn.LayerNorm(8), expand=nn.Linear(8, 16), shrink=nn.Linear(16, 8),
            norm3=nn.LayerNorm(8), head=nn.Linear(8, 4),
        )  # fmt: skip

    def attend(self, x):
        return self.attention(x)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.attend(self.norm1(x))
        x = x + self.shrink(functional.gelu(self.expand(self.norm2(x))))
        return self.head(self.norm3(x).mean(1))


@structure("expand", words={"embed": STREAM, "shrink": STREAM, "attention.qkv": HEADS,
                            "attention.out": STREAM}, example=tokens)  # fmt: skip
def attention_by_hand():
    return Encoder(WrittenByHand(8))


@structure("expand", words={"embed": STREAM, "attention.out_proj": (*HEADS, *STREAM)},
           example=tokens)  # fmt: skip
class multihead_attention(Encoder):
    def __init__(self):
        super().__init__(nn.MultiheadAttention(8, 2, batch_first=True))

    def attend(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class Projections(nn.Module):
    """Attention with a layer each for queries, keys and values, and the fused operation."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out = nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


@structure("expand", words={f"attention.{name}": HEADS for name in "qkv"}, example=tokens)
def scaled_dot_product_attention():
    return Encoder(Projections())


@structure("linear1", words={"self_attn.out_proj": (*HEADS, *STREAM), "linear2": STREAM},
           example=tokens)  # fmt: skip
class encoder_layer(nn.TransformerEncoderLayer):
    """PyTorch's own, whose fast path in eval mode runs none of its layers."""

    def __init__(self):
        super().__init__(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(super().forward(x).mean(1))


@structure("expand", words={"patches": STREAM, "shrink": STREAM})
class vision_transformer(Encoder):
    """Patches, a class token and positions make the residual stream."""

    def __init__(self):
        super().__init__(WrittenByHand(8))
        self.embed = nn.Identity()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 5, 8))

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        return super().forward(
            torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        )


@structure("hidden", words={"embed": (*FOLLOW, *PROOF)}, example=words_of_a_text)
class embedding(Net):
    def __init__(self):
        super().__init__(embed=nn.Embedding(11, 8), hidden=nn.Linear(8, 12), head=nn.Linear(12, 4))

    def forward(self, x):
        return self.head(self.hidden(self.embed(x).mean(1)).relu())


@structure("hidden", words={"before": ("lstm", "recurrent", *FOLLOW, *PROOF)}, example=tokens)
class lstm(Net):
    def __init__(self):
        super().__init__(
            before=nn.Linear(8, 6), lstm=nn.LSTM(6, 5, batch_first=True),
            hidden=nn.Linear(5, 12), head=nn.Linear(12, 4),
        )  # fmt: skip

    def forward(self, x):
        x, _ = self.lstm(self.before(x))
        return self.head(self.hidden(x[:, -1]).relu())


@structure("hidden", words={"before": ("gru", "recurrent", *FOLLOW, *PROOF)}, example=tokens)
class gru_cell(Net):
    def __init__(self):
        super().__init__(
            before=nn.Linear(8, 6), cell=nn.GRUCell(6, 5), hidden=nn.Linear(5, 12),
            head=nn.Linear(12, 4),
        )  # fmt: skip

    def forward(self, x):
        state = x.new_zeros(len(x), 5)
        for step in self.before(x).unbind(1):
            state = self.cell(step, state)
        return self.head(self.hidden(state).relu())
