"""The classifier: a network's last linear layer is fitted to the labels of calibration images."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from slimnet.execution import watching
from slimnet.repair.refit import MIN_ROWS_PER_COLUMN
from slimnet.repair.repair import RIDGE
from slimnet.repair.teacher import TeacherOutputs

ITERATIONS = 50
"""A guess: on the paper's networks the cross-entropy hardly falls any more after 20."""


@torch.no_grad()
def fit_classifier(teacher: TeacherOutputs, slim: nn.Module) -> bool:
    """Change ``slim`` in place: fit its last layer to labels; return whether that can be done.

    The layer must be linear, its outputs the network's scores or its one logit, the task a
    classification, and there must be MIN_ROWS_PER_COLUMN images for each of its inputs. It
    minimises the cross-entropy, with a ridge towards the weights that it has now.
    """
    task, reads, labels = teacher.task, list[Tensor](), list[Tensor]()
    few = task.few(teacher.batches)
    name = _classifier(slim, lambda: task.outputs(slim, few))
    if name is None:
        return False
    with watching(slim, [name], lambda _, __, read, ___: reads.append(read.double())):
        for batch in teacher.batches:
            known = task.labels(batch)
            if known is None:
                return False
            labels.append(known)
            task.outputs(slim, batch)
    layer = slim.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    features, weights = torch.cat(reads), layer.weight
    if layer.bias is not None:
        features = torch.cat([features, torch.ones(len(features), 1)], 1)
        weights = torch.cat([weights, layer.bias[:, None]], 1)
    enough = len(features) >= MIN_ROWS_PER_COLUMN * features.shape[1]
    if not enough or not bool(features.isfinite().all()):
        return False
    # of one logit two classes whose scores are minus and plus half of it; they stay opposite
    rows = torch.cat([-weights / 2, weights / 2]) if len(weights) == 1 else weights
    fitted = logistic_regression(rows, features, torch.cat(labels))
    fitted = fitted[1:] - fitted[:1] if len(weights) == 1 else fitted
    layer.weight.copy_(fitted[:, : layer.in_features])
    if layer.bias is not None:
        layer.bias.copy_(fitted[:, -1])
    return True


def logistic_regression(weights: Tensor, features: Tensor, labels: Tensor) -> Tensor:
    """Return weights of a lower mean cross-entropy, near to those that there are.

    Each step solves least squares with an upper bound of the second derivatives, so that the loss
    never rises (Böhning 1992, Multinomial Logistic Regression Algorithm).

    Args:
        weights: (classes, columns), not changed.
        features: (images, columns).
        labels: (images,) int64.
    """
    start, features = weights.double(), features.double()
    wanted = nn.functional.one_hot(labels, len(start)).double()
    gram = features.T @ features / len(features)
    ridge = RIDGE * float(gram.diagonal().mean())
    bound = gram / 2
    bound.diagonal().add_(ridge)
    factor, found = torch.linalg.cholesky(bound), start
    for _ in range(ITERATIONS):
        excess = (features @ found.T).softmax(1) - wanted
        slope = excess.T @ features / len(features) + ridge * (found - start)
        found = found - torch.cholesky_solve(slope.T, factor).T
    return found


def _classifier(model: nn.Module, run: Callable[[], Sequence[Tensor]]) -> str | None:
    """Return the linear layer whose output is the only output of the model, if there is one."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    written: list[tuple[str, Tensor]] = []
    with watching(model, names, lambda name, _, __, output: written.append((name, output))):
        outputs = run()
    found = [name for name, output in written if len(outputs) == 1 and output is outputs[0]]
    once = len(found) == 1 and sum(name == found[0] for name, _ in written) == 1
    return found[0] if once and outputs[0].ndim == 2 else None
