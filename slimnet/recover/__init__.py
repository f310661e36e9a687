"""Giving accuracy back: closed-form repair of the layers that read what was removed."""

from slimnet.recover.moments import Moments, gather_moments, shrink_moments
from slimnet.recover.reconstruction import removal_errors
from slimnet.recover.repair import removed_inputs, repaired_weights, replaced, set_values
from slimnet.recover.resolve import resolve

__all__ = [
    "Moments",
    "gather_moments",
    "removal_errors",
    "removed_inputs",
    "repaired_weights",
    "replaced",
    "resolve",
    "set_values",
    "shrink_moments",
]
