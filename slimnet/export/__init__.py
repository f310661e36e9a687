"""The files of a result, each proven before it gets its name, and the folder that holds them."""

import slimnet.execution.quiet_onnxruntime
from slimnet.export.artefacts import load_program, provenance, save_program, write_artefacts
from slimnet.export.confirm import Confirmer, plan_confirmation
from slimnet.export.folder import (
    WorkFolder,
    check_output_folder,
    require_intact,
    require_writable_parent,
    writing,
)
from slimnet.export.int8 import NAME, make_int8, ship_int8
from slimnet.export.layer_timer import PROFILE_IMAGES, layer_timer
from slimnet.export.onnx_file import Translated, onnx_parity, translate, write_onnx
from slimnet.export.plan_file import (
    load_plan,
    load_slim,
    plan_sha256,
    read_plan_file,
    save_plan,
    save_weights,
)
