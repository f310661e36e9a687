"""The recipe of a fine-tuning: every number of it, with its unit, its range and its default."""

from __future__ import annotations

import math
from dataclasses import dataclass

from slimnet.errors import InputError

USUAL_RATES = {"sgd": 0.01, "adamw": 5e-4}
_LIMITS = {
    "epochs": (1, math.inf),
    "learning_rate": (1e-12, 1e3),
    "batch_images": (1, math.inf),
    "warmup_share": (0, 1),
    "distill_share": (0, 1),
    "temperature": (1e-3, 1e3),
    "norm_scale_l1": (0, 1e3),
    "weight_decay": (0, 1e3),
    "gradient_norm_limit": (1e-12, math.inf),
}
_WHOLE = ("epochs", "batch_images")


@dataclass(frozen=True)
class TrainingRecipe:
    """How to train a slim network for a short while, so that it recovers.

    Args:
        epochs: passes over the images.
        optimizer: ``sgd`` (momentum 0.9, Nesterov) or ``adamw``.
        learning_rate: the highest one; None is 0.01 for sgd and 0.0005 for adamw.
        batch_images: images a step, at most.
        warmup_share: the share of the steps, 0 to 1, in which the rate rises from 0; over all
            steps a cosine takes it down to 0.
        distill_share: d, 0 to 1: the loss is (1 - d) times the task's and d times the
            distillation's.
        temperature: what both networks' scores are divided by for distillation.
        norm_scale_l1: nats per unit of Σ|γ| over the scales of norms (Liu et al., Learning
            Efficient Convolutional Networks through Network Slimming, 2017); 0 is none.
        weight_decay: of weights only, not of biases and norms; L2 with sgd, decoupled with adamw.
        gradient_norm_limit: longer gradients are cut to this length; inf never cuts.
        augment: mirror and shift images, where the original recognises such images too.

    Raises:
        InputError: a value is outside its range; the message gives the rule.
    """

    epochs: int = 5
    optimizer: str = "sgd"
    learning_rate: float | None = None
    batch_images: int = 64
    warmup_share: float = 0.05
    distill_share: float = 0.5
    temperature: float = 2.0
    norm_scale_l1: float = 0.0
    weight_decay: float = 1e-4
    gradient_norm_limit: float = 5.0
    augment: bool = True

    def __post_init__(self) -> None:
        if self.optimizer not in USUAL_RATES:
            raise InputError(f"optimizer is {' or '.join(USUAL_RATES)}; got {self.optimizer!r}")
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if value is None and name == "learning_rate":
                continue
            kinds = (int,) if name in _WHOLE else (int, float)
            if type(value) not in kinds or not low <= value <= high:
                kind = "a whole number" if name in _WHOLE else "a number"
                reach = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
                raise InputError(f"{name} is {kind}, {reach}; got {value!r}")

    @property
    def highest_rate(self) -> float:
        """The learning rate after the warm-up."""
        return USUAL_RATES[self.optimizer] if self.learning_rate is None else self.learning_rate

    def rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0: linear warm-up times cosine."""
        rise = min(1.0, (step + 1) / max(1, round(self.warmup_share * steps)))
        return self.highest_rate * rise * (1 + math.cos(math.pi * step / steps)) / 2
