"""Closed-form repair of the layers that read what was removed, and refits against the original."""

from slimnet.repair.classifier import fit_classifier
from slimnet.repair.norm_statistics import recalibrate_norms
from slimnet.repair.refit import refit
from slimnet.repair.removal_errors import RemovalErrors
from slimnet.repair.repair import (
    InverseGram,
    gather_inverse_grams,
    removed_inputs,
    repaired_weights,
    shrink_inverse_grams,
)
from slimnet.repair.teacher import TeacherOutputs
