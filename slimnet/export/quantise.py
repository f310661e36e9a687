"""An ONNX file in int8, by ONNX Runtime's own static quantiser, checked."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedOpsetsPass
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from slimnet.errors import InputError, ProofError
from slimnet.export.obstacles import deepest_cause
from slimnet.export.to_onnx import clear_notes, require_sound
from slimnet.export.tracing import quiet
from slimnet.load import partial_file
from slimnet.records import Inputs
from slimnet.tasks import fill_batch, input_tensors
from slimnet.timing import OnnxNetwork, is_arm, knows_vnni

METHODS = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
PERCENTILE = 99.99  # of the values; the quantiser's own default is 99.999. A guess
# ONNX Runtime's CPU computes these in int8, or they pass int8 on. It has transposed convolutions
# and norms only in float. Conversions around those would cost time and accuracy for nothing.
OPERATORS = (
    "Add", "AveragePool", "Clip", "Concat", "Conv", "Flatten", "Gemm", "GlobalAveragePool",
    "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "Relu", "Reshape", "Resize", "Sigmoid",
    "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip


class BatchReader(CalibrationDataReader):  # type: ignore[misc]
    """Batches as the quantiser reads them: some at a time, by ``set_range``."""

    def __init__(self, names: Sequence[str], inputs: Sequence[Inputs]) -> None:
        self._names, self._inputs = names, inputs
        self._left = iter(inputs)

    def __len__(self) -> int:
        """Return how many batches there are."""
        return len(self._inputs)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Give these batches next."""
        self._left = iter(self._inputs[start_index:end_index])

    def get_next(self) -> dict[str, object] | None:
        """Return the next batch, arrays (images, ...) by input name; None where none is left."""
        batch = next(self._left, None)
        if batch is None:
            return None
        arrays = (tensor.contiguous().numpy() for tensor in input_tensors(batch))
        return dict(zip(self._names, arrays, strict=True))


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
        method: the way to choose each tensor's range; one of METHODS.
        path: of the new file; nothing is left there on failure.
        note: goes into the file as metadata.

    Raises:
        InputError: the quantiser cannot do it, or finds nothing to quantise.
        ProofError: the quantised file is not valid, or does not run.
    """
    try:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            made = _tidied(_quantised(source, inputs, method, Path(folder)), note)
    except Exception as error:  # the quantiser raises many unrelated classes
        raise InputError(f"ONNX Runtime cannot quantise it ({deepest_cause(error)})") from error
    _require_weights(made)
    graph = made.graph
    require_sound(made, ([x.name for x in graph.input], [x.name for x in graph.output]))
    with partial_file(path) as temporary:
        temporary.write_bytes(made.SerializeToString(deterministic=True))
        _require_runs(temporary, inputs[0])


def _quantised(
    source: Path, inputs: Sequence[Inputs], method: str, folder: Path
) -> onnx.ModelProto:
    prepared, made = folder / "prepared.onnx", folder / "made.onnx"
    # symbolic shapes would need sympy; ONNX's own inference suffices for a free batch size
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


def _tidied(made: onnx.ModelProto, note: Mapping[str, str]) -> onnx.ModelProto:
    """Return the file with our notes alone, and without unused operator sets."""
    model = ir.from_proto(made)
    clear_notes(model)
    RemoveUnusedOpsetsPass()(model)
    model.metadata_props.update(sorted(note.items()))
    return ir.to_proto(model)


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
        raise ProofError(f"ONNX Runtime cannot run it in int8 ({deepest_cause(error)})") from error
