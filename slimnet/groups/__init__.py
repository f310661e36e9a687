"""Groups of coupled channels: find them, mask them, cut them out, and prove that both agree."""

from slimnet.groups.find import find_groups
from slimnet.groups.group import Gate, Group, Member, merge_plans, plan_for, shrink_groups
from slimnet.groups.mask import mask, masked
from slimnet.groups.proof import masked_slim_error, prove_slim
from slimnet.groups.sides import (
    channel_axis,
    channel_weights,
    first_argument,
    is_depthwise,
    output_channels,
)
from slimnet.groups.slim import apply_plan, channels_of, slim_copy

__all__ = [
    "Gate",
    "Group",
    "Member",
    "apply_plan",
    "channel_axis",
    "channel_weights",
    "channels_of",
    "find_groups",
    "first_argument",
    "is_depthwise",
    "mask",
    "masked",
    "masked_slim_error",
    "merge_plans",
    "output_channels",
    "plan_for",
    "prove_slim",
    "shrink_groups",
    "slim_copy",
]
