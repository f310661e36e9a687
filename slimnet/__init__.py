"""slimnet: a trained network goes in; a smaller, faster one comes out, with the proof."""

import os
from importlib.metadata import version as _version

# From 1.29 on ONNX Runtime keeps a device id and tells its makers about every model that it runs,
# unless this is set before its first import. A user who sets it to something else is obeyed.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Large pages for large tensors, where torch comes after this: inspecting a network of gigabytes
# spends less time on getting memory.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from slimnet.apply import apply
from slimnet.bench import bench
from slimnet.compare import compare
from slimnet.compress import compress
from slimnet.errors import InputError, ProofError, SlimnetError
from slimnet.export import load_plan, load_slim
from slimnet.groups import apply_plan
from slimnet.inspect import inspect
from slimnet.measure import Task
from slimnet.records import (
    Application,
    Applied,
    Benchmark,
    Comparison,
    Inspection,
    Result,
    Verification,
)
from slimnet.settings import Settings
from slimnet.verify import verify

__version__ = _version("slimnet")
__all__ = [
    "Application",
    "Applied",
    "Benchmark",
    "Comparison",
    "InputError",
    "Inspection",
    "ProofError",
    "Result",
    "Settings",
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
