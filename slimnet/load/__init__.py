"""Load a network, its data and the settings, or say in one line why not."""

from slimnet.load.check import check_pair
from slimnet.load.configuration import read_configuration
from slimnet.load.data import load_splits
from slimnet.load.input_shape import made_up_inputs, parse_shape, smaller_inputs
from slimnet.load.model import load_model

__all__ = [
    "check_pair",
    "load_model",
    "load_splits",
    "made_up_inputs",
    "parse_shape",
    "read_configuration",
    "smaller_inputs",
]
