"""The errors that slimnet raises on purpose; each says the rule, what came, and what to do."""

from __future__ import annotations


class SlimnetError(Exception):
    """Base of every error a user may see. ``exit_code`` is the command's exit status."""

    exit_code = 1


class InputError(SlimnetError):
    """A model file, data set, option or output folder that cannot be used as it is."""

    exit_code = 2


class ProofError(SlimnetError):
    """A proof failed: what would be shipped is not what was measured, so nothing is shipped."""

    exit_code = 4
