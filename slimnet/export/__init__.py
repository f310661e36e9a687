"""Artefacts that are proven before they get their name: ONNX, .pt2, plan, weights, folder."""

from slimnet.export.artefacts import provenance, write_artefacts
from slimnet.export.folder import check_output_folder, require_intact
from slimnet.export.int8 import try_int8
from slimnet.export.layer_timer import PROFILE_IMAGES, layer_timer
from slimnet.export.onnx_file import export_onnx, write_onnx
from slimnet.export.parity import onnx_parity
from slimnet.export.plan_file import (
    load_plan,
    plan_sha256,
    read_plan_file,
    save_plan,
    save_weights,
)
from slimnet.export.program import save_program
from slimnet.export.slim_folder import load_slim
from slimnet.export.torch_network import torch_network
from slimnet.export.translated import Translated, translate
from slimnet.export.work_folder import WorkFolder

__all__ = [
    "PROFILE_IMAGES",
    "Translated",
    "WorkFolder",
    "check_output_folder",
    "export_onnx",
    "layer_timer",
    "load_plan",
    "load_slim",
    "onnx_parity",
    "plan_sha256",
    "provenance",
    "read_plan_file",
    "require_intact",
    "save_plan",
    "save_program",
    "save_weights",
    "torch_network",
    "translate",
    "try_int8",
    "write_artefacts",
    "write_onnx",
]
