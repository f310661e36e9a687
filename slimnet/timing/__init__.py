"""How fast networks and their layers are, on each runtime."""

import slimnet.execution.quiet_onnxruntime
from slimnet.timing.latency import measure_latency, measure_speed, noise_warning
from slimnet.timing.machine_cache import recall, remember
from slimnet.timing.onnx_reader import TRANSPOSED_WEIGHT
from slimnet.timing.onnx_runtime import OnnxNetwork
from slimnet.timing.parity import TOLERANCE, compare_outputs, error_beside_onnx_runtime
from slimnet.timing.paying_widths import (
    inputs_in_effect,
    measure_paying_widths,
    narrow_widths,
    next_lower_width,
    width_in_effect,
    widths_in_words,
)
from slimnet.timing.runtime import Runtime, TimedNetwork, is_arm, knows_vnni, processor
from slimnet.timing.runtimes import RUNTIMES, require_runtime
