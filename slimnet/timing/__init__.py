"""How fast networks and their layers are, on each runtime."""

import slimnet.execution.quiet_onnxruntime
from slimnet.timing.latency import (
    Protocol,
    measure_latency,
    measure_speed,
    noise_warning,
    protocol_of,
)
from slimnet.timing.machine import is_arm, knows_vnni, processor
from slimnet.timing.onnx_profile import TRANSPOSED_WEIGHT
from slimnet.timing.onnx_session import OnnxNetwork
from slimnet.timing.paying_widths import measure_paying_widths
from slimnet.timing.runtime import Runtime, TimedNetwork
from slimnet.timing.runtimes import RUNTIMES, require_runtime
from slimnet.timing.widths import (
    inputs_in_effect,
    narrow_widths,
    next_lower_width,
    width_in_effect,
    widths_in_words,
)
