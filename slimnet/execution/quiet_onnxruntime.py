"""Import ONNX Runtime without its telemetry; timing and export import this file first.

From 1.29 on ONNX Runtime keeps a device id and reports every model that it runs to its makers,
unless a variable of the environment is set before its first import. A user's own value counts.
The variable is read then only, and the environment stays as it was.
"""

import importlib
import os

SWITCH = "ORT_DISABLE_TELEMETRY"

if SWITCH in os.environ:
    importlib.import_module("onnxruntime")
else:
    os.environ[SWITCH] = "1"
    try:
        importlib.import_module("onnxruntime")
    finally:
        del os.environ[SWITCH]
