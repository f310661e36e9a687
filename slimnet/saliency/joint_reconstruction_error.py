"""Joint reconstruction error: what the repair cannot make up for when a unit goes after others."""

import torch
from torch import Tensor

from slimnet.groups import Group
from slimnet.saliency.removal_errors import RemovalErrors


def joint_reconstruction_error(group: Group, errors: RemovalErrors) -> Tensor:
    """The reconstruction error of a unit and all units of the group that go before it, (units,).

    They go in the order that costs least at every step, each repair counted, so that of two
    channels that say the same one stays: a set of the lowest scores is one that can go together.
    inf where a consumer's error is not known: the group's units are proposed last.
    """
    unknown = torch.full((group.units,), torch.inf, dtype=torch.float64)
    return errors.together.get(group.name, unknown)
