"""Every saliency metric, and the scores of units. A new metric is a function and its name below.

METRICS score the channels of one layer from its statistics; a group's score is the sum over its
members. GROUP_METRICS score the units of a whole group from the errors that their removal leaves.
The prefix ``transitive_`` before any name divides a unit's score by the parameters it saves.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.execution import weight_slices
from slimnet.groups import Group
from slimnet.options import PAPER_METRICS, nearest
from slimnet.saliency.statistics import LayerStatistics
from slimnet.tasks import Task


class RemovalErrors(Protocol):
    """Squared errors per row of the consumers' inputs; ``slimnet.repair`` computes them."""

    @property
    def groups(self) -> Collection[str]:
        """The names of the groups in ``alone``."""
        ...

    @property
    def alone(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Group name -> consumer -> (units,): the error when each unit goes alone."""
        ...

    @property
    def together(self) -> Mapping[str, Tensor]:
        """Group name -> (units,): the error of each unit with all that go before it."""
        ...


def mean_square_weight(layer: LayerStatistics) -> Tensor:
    """(1/‖W_c‖₀) Σ w² for each channel, (channels,). Persand et al. 2020, Table I, (1)."""
    return layer.weight.square().sum(1) / layer.weight.count_nonzero(1).clamp_min(1)


def l1_weight(layer: LayerStatistics) -> Tensor:
    """Σ|w| for each channel, (channels,). Li et al. 2017, Pruning Filters, section 3.1."""
    return layer.weight.abs().sum(1)


def l2_weight(layer: LayerStatistics) -> Tensor:
    """√Σw² for each channel, (channels,). Molchanov et al. 2017, section 2.2 (minimum weight)."""
    return layer.weight.square().sum(1).sqrt()


def mean_activation(layer: LayerStatistics) -> Tensor:
    """(1/‖A_c‖₀) Σ a, averaged over images, (channels,). Persand et al. 2020, Table I, (2)."""
    return (layer.activation / layer.count.clamp_min(1)).mean(0)


def mean_absolute_activation(layer: LayerStatistics) -> Tensor:
    """(1/|A_c|) Σ|a|, averaged over images, (channels,).

    Molchanov et al. 2017, section 2.2 (activation), before the activation function; every element
    counts, zeros too.
    """
    return (layer.absolute / layer.elements).mean(0)


def deviation_activation(layer: LayerStatistics) -> Tensor:
    """√(E[a²] − E[a]²) over images and positions together, (channels,).

    Molchanov et al. 2017, section 2.2 (activation).
    """
    elements = layer.elements.sum(0)
    mean = layer.activation.sum(0) / elements
    # rounding may leave a constant channel a little below zero
    return (layer.square.sum(0) / elements - mean.square()).clamp_min(0).sqrt()


def apoz(layer: LayerStatistics) -> Tensor:
    """1 − APoZ: the share of elements above zero, averaged over images, (channels,).

    Hu et al. 2016, Network Trimming, eq. 1. The gate sits before the activation function, so an
    element is a zero where a ≤ 0, as a ReLU behind it would make it. Only the order of a metric
    is used and low means unimportant, hence 1 − APoZ.
    """
    return (layer.positive / layer.elements).mean(0)


BINS = 8
"""As many as Molchanov et al. leave open. A guess: 8 bins of 64 images each from 512 images on."""


def mutual_information(layer: LayerStatistics) -> Tensor:
    """I(q(ā_c); ŷ) = H(q) + H(ŷ) − H(q,ŷ) in nats, (channels,): the information gain.

    ā is the mean of a channel's feature map, image by image; q puts it into one of 8 bins of
    equal population; ŷ is the class that the network predicts. Molchanov et al. 2017, section 2.2,
    there with the label. The plug-in estimate is too high where images are few and classes many,
    by nearly the same for every channel that fills all bins.
    """
    bins = _equal_population_bins(layer.activation / layer.elements)
    classes = torch.unique(layer.prediction, return_inverse=True)[1]
    joint = _joint_share(bins, classes)
    entropies = _entropy(joint.sum(2)) + _entropy(joint.sum(1)) - _entropy(joint.flatten(1))
    return entropies.clamp_min(0)


def _equal_population_bins(values: Tensor) -> Tensor:
    """Return the bin of each value in its column, int64 (images, channels); ties share a bin."""
    columns = values.T.contiguous()
    below = torch.searchsorted(columns.sort(1).values, columns)
    return (below * BINS // columns.shape[1]).clamp_max(BINS - 1).T


def _joint_share(bins: Tensor, classes: Tensor) -> Tensor:
    """Return the share of images in each bin and class, (channels, bins, classes)."""
    channels, many = bins.shape[1], int(classes.max()) + 1
    cell = (torch.arange(channels) * BINS + bins) * many + classes[:, None]
    counts = torch.bincount(cell.flatten(), minlength=channels * BINS * many)
    return counts.reshape(channels, BINS, many).double() / len(classes)


def _entropy(shares: Tensor) -> Tensor:
    """Return −Σ p ln p over the last dimension, in nats; 0 ln 0 is 0."""
    return -torch.xlogy(shares, shares).sum(-1)


def mean_gradient(layer: LayerStatistics) -> Tensor:
    """(1/‖A_c‖₀) |Σ dL/da|, mean over images, (channels,). Persand et al. 2020, Table I, (3)."""
    return (layer.gradient.abs() / layer.count.clamp_min(1)).mean(0)


def taylor_first_order(layer: LayerStatistics) -> Tensor:
    """(1/‖A‖₀) |Σ a·dL/da|, mean over images, (channels,). Persand et al. 2020, Table I, (4)."""
    return (layer.product.abs() / layer.count.clamp_min(1)).mean(0)


def taylor_second_order(layer: LayerStatistics) -> Tensor:
    """½ (Σ a·dL/da)², averaged over images, (channels,). Persand et al. 2020, Table I, (5)."""
    return layer.product.square().mean(0) / 2


def reconstruction_error(group: Group, errors: RemovalErrors) -> Tensor:
    """Σ over consumers of tr(W_c (H⁻¹_cc)⁻¹ W_cᵀ), (units,) float64.

    The optimal brain surgeon's saliency (Hassibi and Stork 1993) for a block of columns c, summed
    over the rows of W. A consumer whose error is not known (it cannot be repaired) makes the
    group's scores inf: its units are proposed last.
    """
    total = torch.zeros(group.units, dtype=torch.float64)
    known = errors.alone.get(group.name, {})
    for consumer in group.consumers:
        total += known.get(consumer, torch.inf)
    return total


def joint_reconstruction_error(group: Group, errors: RemovalErrors) -> Tensor:
    """The reconstruction error of a unit and all units of the group that go before it, (units,).

    They go in the order that costs least at every step, each after the repair for those before.
    Of two channels that carry the same information one gets a high score: the units of the lowest
    scores can go together. inf where a consumer's error is not known, as above.
    """
    unknown = torch.full((group.units,), torch.inf, dtype=torch.float64)
    return errors.together.get(group.name, unknown)


Metric = Callable[[LayerStatistics], Tensor]
GroupMetric = Callable[[Group, RemovalErrors], Tensor]
METRICS: Mapping[str, Metric] = {
    metric.__name__: metric
    for metric in (
        mean_square_weight,
        mean_activation,
        mean_gradient,
        taylor_first_order,
        taylor_second_order,
        l1_weight,
        l2_weight,
        mean_absolute_activation,
        deviation_activation,
        apoz,
        mutual_information,
    )
}
GROUP_METRICS: Mapping[str, GroupMetric] = {
    metric.__name__: metric for metric in (reconstruction_error, joint_reconstruction_error)
}
TRANSITIVE = "transitive_"
REPAIR_METRICS = (
    "joint_reconstruction_error",
    "reconstruction_error",
    "transitive_reconstruction_error",
    "transitive_taylor_first_order",
    "transitive_taylor_second_order",
)


def default_metrics(*, repaired: bool) -> tuple[str, ...]:
    """Return the metrics that propose where the user names none.

    Where trials are repaired there are more: the paper's five do not count with the repair.
    """
    return (*PAPER_METRICS, *REPAIR_METRICS) if repaired else PAPER_METRICS


def base_name(metric: str) -> str:
    """Return the name without the prefix ``transitive_``."""
    return metric.removeprefix(TRANSITIVE)


def needs_removal_errors(metrics: Iterable[str]) -> bool:
    """Tell whether any of the metrics scores groups from removal errors."""
    return any(base_name(metric) in GROUP_METRICS for metric in metrics)


def read_by(metrics: Iterable[str]) -> set[str]:
    """Return the fields of the statistics that these metrics read; only those are gathered."""
    asked: set[str] = set()

    class Asked(LayerStatistics):
        def __getattribute__(self, name: str) -> Any:
            asked.add(name)
            return super().__getattribute__(name)

    fields = {field.name: torch.ones(2, 2) for field in dataclasses.fields(LayerStatistics)}
    fields["prediction"] = torch.tensor([0, 1])
    for metric in {base_name(metric) for metric in metrics} & set(METRICS):
        METRICS[metric](Asked(**fields))
    return asked & set(fields)


def lacks_classes(task: Task, metrics: Iterable[str]) -> str:
    """Return why a task cannot have these metrics, or "" where it can."""
    compared = next((name for name in metrics if "prediction" in read_by([name])), None)
    if compared is None or task.by_image:
        return ""
    return (
        f"{compared} compares channels with the class that the network gives, which a task of "
        "your own does not have"
    )


def require_metrics(names: tuple[str, ...]) -> None:
    """Check the names of metrics.

    Raises:
        InputError: a name is not in a registry; the message gives the nearest one.
    """
    for name in names:
        if base_name(name) not in {**METRICS, **GROUP_METRICS}:
            prefix = name[: len(name) - len(base_name(name))]
            known = [prefix + metric for metric in (*METRICS, *GROUP_METRICS)]
            raise InputError(f"unknown saliency metric {name!r}{nearest(name, known)}")


def saved_parameters(group: Group, model: nn.Module) -> Tensor:
    """Return how many parameters go with each unit of the group alone, (units,) float64.

    They are the producers' filters and biases, the norms' weights and biases, and the input
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


def score_units(
    groups: Sequence[Group],
    statistics: Mapping[str, LayerStatistics],
    metrics: Sequence[str],
    *,
    model: nn.Module | None = None,
    removal_errors: RemovalErrors | None = None,
) -> dict[str, Tensor]:
    """Return, for each metric, the saliency of all units of all groups, (units,), group by group.

    Scores that are not numbers become inf: such a unit is proposed last.

    Args:
        groups: the groups as they stand.
        statistics: by layer, as ``gather_statistics`` returns them.
        metrics: names, each with or without the prefix ``transitive_``.
        model: the network of the groups, for ``transitive_`` metrics; it is not changed.
        removal_errors: of the consumers, for the metrics in GROUP_METRICS.

    Raises:
        InputError: a metric needs the model or the removal errors, and they are missing.
    """
    if needs_removal_errors(metrics) and not (removal_errors and removal_errors.groups):
        raise InputError(
            f"the saliency metric {' or '.join(GROUP_METRICS)} needs layers that can be "
            "repaired; the repair is off or there are none; leave the metric out"
        )
    saved = _saved(groups, model, metrics)
    scores = {}
    for metric in metrics:
        name = base_name(metric)
        parts = [_score_group(group, statistics, name, removal_errors) for group in groups]
        if metric.startswith(TRANSITIVE):
            parts = [part / parameters for part, parameters in zip(parts, saved, strict=True)]
        total = torch.cat(parts) if parts else torch.empty(0)
        scores[metric] = total.nan_to_num(nan=torch.inf, posinf=torch.inf)
    return scores


def _score_group(
    group: Group,
    statistics: Mapping[str, LayerStatistics],
    metric: str,
    removal_errors: RemovalErrors | None,
) -> Tensor:
    if metric in GROUP_METRICS:
        assert removal_errors is not None
        return GROUP_METRICS[metric](group, removal_errors)
    total = torch.zeros(group.units, dtype=torch.float64)
    for gate in group.gates:
        member = group.producer(gate.layer)
        channels = METRICS[metric](statistics[gate.layer])
        total.index_add_(0, member.unit, channels[member.index])
    return total


def _saved(
    groups: Sequence[Group], model: nn.Module | None, metrics: Sequence[str]
) -> list[Tensor]:
    """Return the parameters that each unit of each group saves, where a metric needs them."""
    transitive = [metric for metric in metrics if metric.startswith(TRANSITIVE)]
    if not transitive:
        return []
    if model is None:
        raise InputError(f"the saliency metric {transitive[0]} counts parameters; give the model")
    return [saved_parameters(group, model) for group in groups]
