"""How many parameters the removal of a unit really saves: what transitive scores divide by."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from slimnet.groups import Group
from slimnet.groups.sides import weight_slices


def saved_parameters(group: Group, model: nn.Module) -> Tensor:
    """Return how many parameters go with each unit of the group alone, (units,) float64.

    Counted are the producers' filters and biases, the norms' weights and biases, and the input
    weights of all consumers, in the shapes that the model has now; it is not changed. Persand et
    al. 2021, Taxonomy of Saliency Metrics for Channel Pruning (weights transitively removed).
    """
    shapes: dict[int, torch.Size] = {}
    # parameter -> dimension -> (unit, position) pairs (entries, 2)
    going: dict[int, dict[int, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
    for member in group.members:
        module = model.get_submodule(member.module)
        for parameter, dimension, _ in weight_slices(module, member.direction, member.index):
            shapes[id(parameter)] = parameter.shape
            # the second dimension of a grouped convolution counts within one group
            position = member.index % parameter.shape[dimension]
            going[id(parameter)][dimension].append(torch.stack([member.unit, position], 1))
    saved = torch.zeros(group.units, dtype=torch.float64)
    for key, dimensions in going.items():
        kept = torch.ones(group.units, dtype=torch.float64)
        for dimension, pairs in dimensions.items():
            unit = torch.unique(torch.cat(pairs), dim=0)[:, 0]
            kept *= 1 - torch.bincount(unit, minlength=group.units) / shapes[key][dimension]
        saved += shapes[key].numel() * (1 - kept)
    return saved.round()
