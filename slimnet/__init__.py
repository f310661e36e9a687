"""slimnet: a trained network goes in; a smaller, faster one comes out, with the proof."""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from slimnet.errors import InputError, ProofError, SlimnetError
from slimnet.options import Options

if TYPE_CHECKING:
    from slimnet.apply import apply
    from slimnet.bench import bench
    from slimnet.compare import compare
    from slimnet.compress import compress
    from slimnet.export import load_plan, load_slim
    from slimnet.groups import apply_plan
    from slimnet.inspect import inspect
    from slimnet.records import (
        Application,
        Applied,
        Benchmark,
        Comparison,
        Inspection,
        Result,
        Verification,
    )
    from slimnet.tasks import Task
    from slimnet.verify import verify

Settings = Options  # the name in version 0.1

__all__ = [
    "Application",
    "Applied",
    "Benchmark",
    "Comparison",
    "InputError",
    "Inspection",
    "Options",
    "ProofError",
    "Result",
    "SlimnetError",
    "Task",
    "Verification",
    "apply",
    "apply_plan",
    "bench",
    "compare",
    "compress",
    "inspect",
    "load_plan",
    "load_slim",
    "verify",
]

# these are imported when they are asked for: torch takes seconds, and --help must not wait for it
COMMANDS = {"apply", "bench", "compare", "compress", "inspect", "verify"}
PLACES = {"Task": "tasks", "apply_plan": "groups", "load_plan": "export", "load_slim": "export"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("slimnet")
    if name not in __all__:
        raise AttributeError(f"module 'slimnet' has no attribute {name!r}")
    place = name if name in COMMANDS else PLACES.get(name, "records")
    return getattr(importlib.import_module(f"slimnet.{place}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Package(ModuleType):
    """Keeps ``slimnet.compress`` the function when Python imports the file of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; the function of a command takes the place of its file."""
        if name in COMMANDS and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
