"""Giving accuracy back: closed-form repair of the layers that read what was removed."""

from slimnet.recover.finetune import finetune
from slimnet.recover.moments import Moments, gather_moments, shrink_moments
from slimnet.recover.norm_statistics import recalibrate_norms
from slimnet.recover.recipe import TrainingRecipe
from slimnet.recover.reconstruction import removal_errors
from slimnet.recover.repair import (
    get_state,
    laid_out_as,
    removed_inputs,
    repaired_weights,
    replaced,
    set_values,
)
from slimnet.recover.resolve import divide, resolve

__all__ = [
    "Moments",
    "TrainingRecipe",
    "divide",
    "finetune",
    "gather_moments",
    "get_state",
    "laid_out_as",
    "recalibrate_norms",
    "removal_errors",
    "removed_inputs",
    "repaired_weights",
    "replaced",
    "resolve",
    "set_values",
    "shrink_moments",
]
