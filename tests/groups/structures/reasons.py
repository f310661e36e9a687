"""The true reason for each layer that is left whole, by structure: words that slimnet must use.

A person has read every one beside its network. A layer that can lose channels some day leaves its
line without effect.
"""

from collections.abc import Iterator, Mapping

OUTPUT = "it makes the network's output"
SINGLE = "it has one channel, and a layer must keep at least one"
IDLE = "it does not run as a layer in eval mode"
LOST = "could not be followed, one by one, to layers that read them"
MIXED = "its channels are mixed, or tied by a shuffle or by parts of equal size, before a layer"
NOT_ZERO = "not the same as setting them to 0"
NORM = "slimnet takes no channels out of the LayerNorm norm"
NORM1 = (
    "slimnet takes no channels out of the LayerNorm norm1, which averages over axes of the shape"
)
SHARED = "first and second share a parameter"
FAILS = "the network fails with fewer channels: "
DIRECT = "uses it directly, not through a layer"
OTHER_NUMBER = "changes how many channels there are: "
PARAMETER = "the network's code applies a parameter to its channels"
IN_TRAINING = "a part that runs only in training reads its channels: "

BY_HAND = FAILS + "q, k, v = self.qkv(x).view(n, length, 3, 2, self.width // 2)"
FIXED_HEADS = FAILS + "q, k, v = (f(x).unflatten(-1, (2, 4))"
CHANGED = FAILS + "x = self.after(self.change(self.stem(x).relu())).relu()"
VIEWED = (
    FAILS + "scale = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid().view(-1, 8, 1, 1)"
)

# by structure: layers, and what must be said of each
TRUE: Mapping[str, Mapping[str, str]] = {
    "attention_by_hand": {"embed attention.out shrink": NORM1, "attention.qkv": BY_HAND},
    "multihead_attention": {
        "embed shrink": NORM1, "attention.out_proj": IDLE, "attention.in_proj_weight": DIRECT,
    },
    "heads_of_inferred_number": {"embed attention.out shrink": NORM1},
    "heads_of_inferred_number_wider_than_the_stream": {"embed attention.out shrink": NORM1},
    "heads_that_share_keys": {"embed attention.out shrink": NORM1},
    "heads_with_a_norm_within_each": {"embed attention.out shrink": NORM1},
    "fused_heads_of_inferred_number": {"embed attention.out shrink": NORM1},
    "fused_heads_each_by_itself": {"embed attention.out shrink": NORM1},
    "heads_that_share_one_key": {
        "embed attention.out shrink": NORM1, "attention.q attention.k": LOST,
        "attention.v": FAILS + "q, k, v = (f(x).unflatten(-1, (-1, self.size))",
    },
    "scaled_dot_product_attention": {
        "embed attention.out shrink": NORM1, "attention.q attention.k attention.v": FIXED_HEADS,
    },
    "encoder_layer": {
        "linear2": NORM1, "self_attn.out_proj": IDLE, "self_attn.in_proj_weight": DIRECT,
    },
    "vision_transformer": {
        "attention.qkv": BY_HAND, "patches attention.out shrink": NORM, "positions": DIRECT,
    },
    "embedding": {"embed.weight": DIRECT},
    "lstm": {
        "before": "slimnet takes no channels out of the LSTM lstm",
        "lstm.weight_ih_l0 lstm.weight_hh_l0": DIRECT,
    },
    "gru_cell": {"before": MIXED, "cell.weight_ih cell.weight_hh": DIRECT},
    "convnext_with_a_layer_scale_that_hides_mistakes": {"stem spatial shrink": NORM},
    "convnext_with_a_layer_scale_of_zero": {"stem spatial shrink": NORM},
    "depthwise_with_two_outputs": {"stem": "its channels can only go all at once"},
    "transposed_grouped": {"stem middle": "middle is a transposed convolution in groups"},
    "grouped_reads_a_concatenation": {
        "left right": "the grouped convolution grouped shares its groups with other layers",
    },
    "one_channel": {"middle": SINGLE},
    "squeeze_and_excitation_with_a_view": {"stem excite": VIEWED},
    "gate_of_one_channel": {"gate": SINGLE},
    "scale_of_each_channel": {"stem": PARAMETER},
    "in_place_on_some_channels": {"stem": NOT_ZERO},
    "head_in_train_mode_only": {
        "stem": IN_TRAINING + "return (y, self.aux(x.mean((2, 3)))) if self.training else y",
        "aux": IDLE,
    },
    "layer_that_never_runs": {"unused": IDLE},
    "features_beside_the_output": {"after": OUTPUT},
    "several_heads": {"other": OUTPUT},
    "heads_in_a_dict": {"other": OUTPUT},
    "sum_of_two_heads": {"other": OUTPUT},
    "one_layer_only": {"stem": OUTPUT},
    "group_norm_of_one_group": {
        "stem": "norm is a GroupNorm of one group: it normalises all channels together"
    },
    "group_norm_across_a_concatenation": {
        "stem halved": "the GroupNorm norm normalises its channels together with those of others",
    },
    "group_norm_by_a_function": {"stem": FAILS + "return self.head(self.after(functional.group"},
    "split_by_a_number_that_the_block_keeps": {"halved": FAILS + "return torch.max(one, other)"},
    "layer_norm_over_images": {
        "stem": NORM + ", which averages over axes of the shape (8, 8, 8)",
        "norm.weight norm.bias": DIRECT,
    },
    "layer_norm_over_channels": {"stem": NORM + ", which averages over axes of the shape (8,)"},
    "layer_norm_over_space": {
        "stem": NORM + ", which averages over axes of the shape (8, 8)",
        "norm.weight norm.bias": DIRECT,
    },
    "instance_norm_with_running_statistics": {
        "stem": FAILS + "return self.head(self.after(self.norm(self.stem(x)).relu())"
    },
    "local_response_norm": {"stem": NOT_ZERO + " (proof in float64): a later step works"},
    "weight_norm": {
        "stem": "the weights of stem are computed",
        "stem.parametrizations.weight.original1": DIRECT,
    },
    "spectral_norm": {
        "stem": "the weights of stem are computed", "stem.parametrizations.weight.original": DIRECT,
    },
    "buffer_for_each_channel": {
        "stem": FAILS + "return self.head(self.after((self.stem(x) * self.scale).relu())"
    },
    "softmax_over_channels": {"stem": NOT_ZERO},
    "channels_rolled": {"stem": NOT_ZERO},
    "sliced": {"stem": CHANGED},
    "every_second_channel": {"stem": NOT_ZERO},
    "split_at_fixed_places": {"stem": FAILS + "first, second = x.split([3, 5], 1)"},
    "view_with_a_number": {"after": FAILS + "return self.head(self.hidden(x).relu())"},
    "mean_over_channels": {"stem": NOT_ZERO},
    "einsum_over_channels": {"stem": PARAMETER, "mix": DIRECT},
    "tied_weights": {"stem first second": SHARED},
    "tied_biases": {"first second": SHARED},
    "tied_autoencoder": {"encode": MIXED},
    "broadcast_sum": {"right": SINGLE},
    "padded_shortcut": {"left right": FAILS + "return left + functional.pad(right"},
    "shortcut_padded_by_concatenation": {"left right": FAILS + "return left + torch.cat([right"},
    "written_into_a_buffer_of_fixed_size": {
        "left": FAILS + "both[:, :5] = left", "right": FAILS + "both[:, 5:] = right",
    },
    "bilinear_pooling": {"left right": MIXED, "after": IDLE},
    "attention_map_over_space": {"right": SINGLE},
    "branch_on_data": {"other": IDLE},
    "functional_convolution": {"stem": PARAMETER, "weight": DIRECT},
    "weights_used_by_a_function": {
        "stem": MIXED,
        "after": IDLE + " (an unused branch, or called by its weights)",
    },
    "weights_changed_on_the_way": {"stem": IDLE + " (an unused branch, or called by its weights)"},
    "weights_standardised": {"after": NOT_ZERO, "stem": NOT_ZERO},
    "scaled_by_the_number_of_channels": {"stem": NOT_ZERO},
    "indexed_by_a_buffer": {
        "stem": FAILS + "return self.end(self.stem(x).relu().index_select(1, self.order))"
    },
    "layer_that_no_module_knows": {
        "stem": FAILS + "return self.end(layer(self.stem(x).relu()))"
    },
    "hook_that_changes_channels": {"stem": NOT_ZERO},
    "experts_chosen_by_the_input": {
        "stem": FAILS + "images = [self.experts[int(image.mean() > 0.3)](image[None])",
    },
    "neighbouring_means": {"stem": NOT_ZERO, "over_channels": SINGLE},
    "mean_and_maximum_map": {"stem": NOT_ZERO, "over_places": SINGLE},
    "scale_and_shift": {"stem": PARAMETER},
}  # fmt: skip


def true_reasons(structure: str) -> Iterator[tuple[str, str]]:
    """Yield each layer of a structure that may be left whole, and words of its true reason."""
    yield "head", OUTPUT
    for layers, words in TRUE.get(structure, {}).items():
        for layer in layers.split():
            yield layer, words
