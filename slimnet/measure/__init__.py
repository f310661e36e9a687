"""Accuracy and loss, size, and latency."""

from slimnet.measure.agreement import Reference, agreement, metric_agreement, random_agreement
from slimnet.measure.classification import CLASSIFICATION, Classification
from slimnet.measure.drop import judge_drop, paired_drop
from slimnet.measure.forward import (
    fill_batch,
    forward,
    in_float64,
    input_tensors,
    output_tensors,
)
from slimnet.measure.latency import measure_latency
from slimnet.measure.layer_pairs import profile_pair
from slimnet.measure.machine import is_arm, knows_vnni, measured_on, processor
from slimnet.measure.mean_loss import mean_loss
from slimnet.measure.noise import noise_warning
from slimnet.measure.onnx_network import OnnxNetwork
from slimnet.measure.paying_widths import (
    inputs_in_effect,
    measure_paying_widths,
    narrow_widths,
    next_lower_width,
    width_in_effect,
    widths_in_words,
)
from slimnet.measure.profile import TRANSPOSED_WEIGHT, profile_layers
from slimnet.measure.quality import (
    Quality,
    measure_quality,
    require_better_than_chance,
    require_finite_loss,
)
from slimnet.measure.runtime import TIMED_RUNTIMES, missing_for, require_runtime
from slimnet.measure.size import count_conv_weights, count_parameters, measure_size
from slimnet.measure.speed import measure_speed
from slimnet.measure.task import Task, require_classes
from slimnet.measure.task_file import choose_task
from slimnet.measure.torch_latency import measure_torch_latency
from slimnet.measure.torch_profile import profile_torch_layers

__all__ = [
    "CLASSIFICATION",
    "TIMED_RUNTIMES",
    "TRANSPOSED_WEIGHT",
    "Classification",
    "OnnxNetwork",
    "Quality",
    "Reference",
    "Task",
    "agreement",
    "choose_task",
    "count_conv_weights",
    "count_parameters",
    "fill_batch",
    "forward",
    "in_float64",
    "input_tensors",
    "inputs_in_effect",
    "is_arm",
    "judge_drop",
    "knows_vnni",
    "mean_loss",
    "measure_latency",
    "measure_paying_widths",
    "measure_quality",
    "measure_size",
    "measure_speed",
    "measure_torch_latency",
    "measured_on",
    "metric_agreement",
    "missing_for",
    "narrow_widths",
    "next_lower_width",
    "noise_warning",
    "output_tensors",
    "paired_drop",
    "processor",
    "profile_layers",
    "profile_pair",
    "profile_torch_layers",
    "random_agreement",
    "require_better_than_chance",
    "require_classes",
    "require_finite_loss",
    "require_runtime",
    "width_in_effect",
    "widths_in_words",
]
