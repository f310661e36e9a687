"""Giving accuracy back: closed-form repair of the layers that read what was removed."""

from slimnet.recover.finetune import finetune
from slimnet.recover.moments import Moments, gather_moments, shrink_moments
from slimnet.recover.norm_statistics import recalibrate_norms
from slimnet.recover.recipe import TrainingRecipe
from slimnet.recover.removal_errors import RemovalErrors
from slimnet.recover.repair import (
    get_state,
    laid_out_as,
    removed_inputs,
    repaired_weights,
    replaced,
    set_values,
)
from slimnet.recover.resolve import resolve
from slimnet.recover.targets import Targets

__all__ = [
    "Moments",
    "RemovalErrors",
    "Targets",
    "TrainingRecipe",
    "finetune",
    "gather_moments",
    "get_state",
    "laid_out_as",
    "recalibrate_norms",
    "removed_inputs",
    "repaired_weights",
    "replaced",
    "resolve",
    "set_values",
    "shrink_moments",
]
