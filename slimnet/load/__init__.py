"""Load a network, its data and the settings, or say in one line why not."""

from slimnet.load.check import check_pair
from slimnet.load.configuration import BESIDE_SETTINGS, OUTPUTS, read_configuration
from slimnet.load.content_hash import content_sha256
from slimnet.load.data import load_splits
from slimnet.load.input_shape import made_up_inputs, parse_shape, smaller_inputs
from slimnet.load.model import load_model
from slimnet.load.model_file import sha256_of
from slimnet.load.network_files import find_pair, possible_batch_sizes
from slimnet.load.onnx_inputs import common_inputs, made_up_onnx_inputs, onnx_inputs
from slimnet.load.without_data import copied_in, on_shapes

__all__ = [
    "BESIDE_SETTINGS",
    "OUTPUTS",
    "check_pair",
    "common_inputs",
    "content_sha256",
    "copied_in",
    "find_pair",
    "load_model",
    "load_splits",
    "made_up_inputs",
    "made_up_onnx_inputs",
    "on_shapes",
    "onnx_inputs",
    "parse_shape",
    "possible_batch_sizes",
    "read_configuration",
    "sha256_of",
    "smaller_inputs",
]
