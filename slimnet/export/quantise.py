"""An ONNX file in int8: ONNX Runtime's own static quantiser, and a check of what it gives."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from slimnet.errors import InputError, ProofError
from slimnet.export.onnx_proto import clear_notes, require_sound
from slimnet.export.partial import partial_file
from slimnet.export.quantiser_reader import BatchReader
from slimnet.export.tracing import first_line, quiet
from slimnet.measure import OnnxNetwork, fill_batch, input_tensors, is_arm, knows_vnni
from slimnet.records import Inputs

METHODS = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
PERCENTILE = 99.99
# ONNX Runtime's CPU computes these in int8, or they pass int8 on. It has transposed convolutions
# and norms only in float: around these, conversions would cost time and accuracy for nothing.
OPERATORS = (
    "Add", "AveragePool", "Clip", "Concat", "Conv", "Flatten", "Gemm", "GlobalAveragePool",
    "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "Relu", "Reshape", "Resize", "Sigmoid",
    "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip


def number_formats() -> str:
    """Return which numbers ONNX Runtime's guide advises for this processor, in words."""
    if is_arm():
        return "S8 activations, S8 weights per channel"
    return f"U8 activations, S8 weights per channel of {8 if knows_vnni() else 7} bits"


def quantise(
    source: Path, inputs: Sequence[Inputs], method: str, path: Path, note: Mapping[str, str]
) -> None:
    """Write the ONNX file ``source`` in int8 to ``path``; the same source and inputs, same bytes.

    Args:
        source: the file in float.
        inputs: batches of preprocessed images (images, ...) that the ranges are taken from.
        method: of METHODS; how the range of each tensor follows from its values.
        path: of the new file; nothing is left there on failure.
        note: goes into the file as metadata.

    Raises:
        InputError: the quantiser cannot do it, or finds nothing to quantise.
        ProofError: what it gave is not valid or does not run.
    """
    try:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            made = _quantised(source, inputs, method, Path(folder))
    except Exception as error:  # the quantiser raises many unrelated classes
        raise InputError(f"ONNX Runtime cannot quantise it ({first_line(error)})") from error
    _require_weights(made)
    _tidy(made, note)
    graph = made.graph
    require_sound(made, ([x.name for x in graph.input], [x.name for x in graph.output]))
    with partial_file(path) as temporary:
        temporary.write_bytes(made.SerializeToString(deterministic=True))
        _require_runs(temporary, inputs[0])


def _quantised(
    source: Path, inputs: Sequence[Inputs], method: str, folder: Path
) -> onnx.ModelProto:
    prepared, made = folder / "prepared.onnx", folder / "made.onnx"
    # symbolic shapes would need sympy; ONNX's own inference knows all that a free batch leaves
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    names = [value.name for value in onnx.load(prepared).graph.input]
    quantize_static(
        prepared, made, BatchReader(names, inputs),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(OPERATORS),
        per_channel=True,
        reduce_range=not is_arm() and not knows_vnni(),
        activation_type=QuantType.QInt8 if is_arm() else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=METHODS[method],
        extra_options={
            "ActivationSymmetric": is_arm(),
            "CalibPercentile": PERCENTILE,
            "CalibTensorRangeSymmetric": False,
            "CalibStridedMinMax": 1,  # for every method: or all batches' maps are held at once
        },
    )  # fmt: skip
    return onnx.load(made)


def _require_weights(made: onnx.ModelProto) -> None:
    kinds = {(tensor.data_type, len(tensor.dims) > 1) for tensor in made.graph.initializer}
    if (onnx.TensorProto.INT8, True) not in kinds:
        raise InputError(
            "it has nothing to quantise: int8 is for convolutions and linear layers with fixed "
            "weights"
        )


def _tidy(made: onnx.ModelProto, note: Mapping[str, str]) -> None:
    """Change the file's notes to ours, and drop operator sets that ONNX Runtime names unused."""
    clear_notes(made)
    onnx.helper.set_model_props(made, dict(sorted(note.items())))
    used = {node.domain for node in made.graph.node} | {""}
    kept = [entry for entry in made.opset_import if entry.domain in used]
    del made.opset_import[:]
    made.opset_import.extend(kept)


def _require_runs(path: Path, inputs: Inputs) -> None:
    try:
        network = OnnxNetwork(path)
        for images in (1, 3):
            outputs = network.run(input_tensors(fill_batch(inputs, images)))
            if not all(bool(output.isfinite().all()) for output in outputs):
                raise ProofError(f"its output in int8 is not finite at batch {images}")
    except ProofError:
        raise
    except Exception as error:  # onnxruntime raises many unrelated classes
        raise ProofError(f"ONNX Runtime cannot run it in int8 ({first_line(error)})") from error
