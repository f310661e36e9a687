"""Every dial of slimnet, with its unit and default: the options of the command and the call."""

from slimnet.settings.dial import as_given, dial, nearest, require_fit, rule_of
from slimnet.settings.settings import (
    GOALS,
    PAPER_METRICS,
    RUNTIMES,
    Settings,
    settings_from,
)

__all__ = [
    "GOALS",
    "PAPER_METRICS",
    "RUNTIMES",
    "Settings",
    "as_given",
    "dial",
    "nearest",
    "require_fit",
    "rule_of",
    "settings_from",
]
