"""Groups of coupled channels: find them, mask them, cut them out, and prove that both agree."""

from slimnet.groups.branches import Branch, Needed, branches_of, find_branches, open_branches
from slimnet.groups.cut import apply_plan, channels_of, cut_out, masked, slim_copy
from slimnet.groups.find import find_groups, keep_layers
from slimnet.groups.group import (
    Gate,
    Group,
    Member,
    merge_plans,
    norms_behind,
    plan_for,
    shrink_groups,
)
from slimnet.groups.prove import prove_slim, require_float64, require_unchanged
