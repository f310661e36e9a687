"""slimnet: a trained network goes in; a smaller, faster one comes out, with the proof."""

from slimnet.compress import compress
from slimnet.errors import InputError, ProofError, SlimnetError
from slimnet.export import load_plan
from slimnet.groups import apply_plan
from slimnet.records import Result
from slimnet.settings import Settings

__all__ = [
    "InputError",
    "ProofError",
    "Result",
    "Settings",
    "SlimnetError",
    "apply_plan",
    "compress",
    "load_plan",
]
