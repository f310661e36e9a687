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


class InferredHeads(nn.Module):
    """Attention whose view infers the number of heads; of ``keys`` each serves several queries."""

    def __init__(self, width, size=2, queries=4, keys=4, norm=None):
        super().__init__()
        self.size, self.repeats = size, queries // keys
        self.q, self.out = nn.Linear(width, queries * size), nn.Linear(queries * size, width)
        self.k, self.v = (nn.Linear(width, keys * size) for _ in range(2))
        self.norm = norm or nn.Identity()

    def forward(self, x):
        q, k, v = (f(x).unflatten(-1, (-1, self.size)) for f in (self.q, self.k, self.v))
        k, v = (part.repeat_interleave(self.repeats, 2).transpose(1, 2) for part in (k, v))
        q = self.norm(q).transpose(1, 2)
        return self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


INFERRED = "expand attention.q attention.k attention.v"


@structure(INFERRED, example=tokens)
def heads_of_inferred_number():
    return Encoder(InferredHeads(8))


@structure(INFERRED, example=tokens)
def heads_of_inferred_number_wider_than_the_stream():
    return Encoder(InferredHeads(8, size=3, queries=6, keys=6))


@structure(INFERRED, example=tokens)
def heads_that_share_keys():
    return Encoder(InferredHeads(8, queries=6, keys=3))


@structure("expand", words=dict.fromkeys(["attention.k", "attention.v"], HEADS), example=tokens)
def heads_that_share_one_key():
    return Encoder(InferredHeads(8, keys=1))


@structure(INFERRED, example=tokens)
def heads_with_a_norm_within_each():
    return Encoder(InferredHeads(8, norm=nn.LayerNorm(2)))


class FusedHeads(nn.Module):
    """Queries, keys and values by one layer, all heads of each, or each head's own, in a row."""

    def __init__(self, width, by_head):
        super().__init__()
        self.qkv, self.out, self.by_head = nn.Linear(width, 24), nn.Linear(8, width), by_head

    def forward(self, x):
        shape, axis = ((-1, 3, 2), 3) if self.by_head else ((3, -1, 2), 2)
        parts = self.qkv(x).unflatten(-1, shape).unbind(axis)
        q, k, v = (part.transpose(1, 2) for part in parts)
        return self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@structure("expand attention.qkv", example=tokens)
def fused_heads_of_inferred_number():
    return Encoder(FusedHeads(8, by_head=False))


@structure("expand attention.qkv", example=tokens)
def fused_heads_each_by_itself():
    return Encoder(FusedHeads(8, by_head=True))


class heads_of_images(Net):
    """Attention over places, by convolutions with a norm each."""

    def __init__(self):
        super().__init__(
            stem=nn.Conv2d(3, 8, 3, padding=1),
            q=nn.Conv2d(8, 12, 1), k=nn.Conv2d(8, 12, 1), v=nn.Conv2d(8, 12, 1),
            norm_q=nn.BatchNorm2d(12), depthwise=nn.Conv2d(12, 12, 3, padding=1, groups=12),
            out=nn.Conv2d(12, 8, 1), head=nn.Linear(8, 4),
        )  # fmt: skip

    def forward(self, x):
        x = self.stem(x)
        q, k, v = self.norm_q(self.q(x)), self.k(x), self.depthwise(self.v(x))
        q, k, v = (part.flatten(2).unflatten(1, (-1, 3)).transpose(2, 3) for part in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(2, 3)
        return self.head((x + self.out(mixed.flatten(1, 2).view(len(x), -1, 8, 8))).mean((2, 3)))


structure("q k v")(heads_of_images)


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
