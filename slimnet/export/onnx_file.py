"""A network as an ONNX file: written, run, and proven to be that network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx
from torch import nn

from slimnet.export.parity import onnx_parity
from slimnet.export.partial import partial_file
from slimnet.export.translated import Translated, translate
from slimnet.measure import fill_batch
from slimnet.records import Inputs, OnnxFile


def export_onnx(
    model: nn.Module,
    example: Inputs,
    path: Path,
    opset: int,
    metadata: Mapping[str, str],
    check_batches: Iterable[int] = (1, 3),
    inputs: Inputs | None = None,
    tolerance: float = 1e-4,
) -> OnnxFile:
    """Write a copy of the model as one ONNX file and prove it; does not change the model.

    See ``trace`` and ``write_onnx``, also for what they raise.
    """
    translated = translate(model, example, opset)
    return write_onnx(translated, path, metadata, check_batches, inputs, tolerance)


def write_onnx(
    translated: Translated,
    path: Path,
    metadata: Mapping[str, str],
    check_batches: Iterable[int] = (1, 3),
    inputs: Inputs | None = None,
    tolerance: float = 1e-4,
) -> OnnxFile:
    """Write a translated network as one ONNX file and prove it; changes nothing.

    The same network and metadata give the same bytes. On failure no file is left behind.

    ``metadata`` is added to the file: put no local path in. ONNX Runtime is compared with PyTorch
    at each of ``check_batches`` on real preprocessed ``inputs`` (images, ...; default the
    example), to ``tolerance`` as a share of the largest value of each output.

    Raises:
        InputError: the network or opset cannot be written as ONNX, or the file not at all.
        ProofError: the file is not valid, not self-contained, or not the network.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(translated.proto)
    onnx.helper.set_model_props(proto, dict(sorted(metadata.items())))
    content = proto.SerializeToString(deterministic=True)
    images = translated.example if inputs is None else inputs
    with partial_file(path) as temporary:
        temporary.write_bytes(content)
        parity = {
            size: onnx_parity(translated.model, temporary, fill_batch(images, size), tolerance)
            for size in check_batches
        }
    digest = hashlib.sha256(content).hexdigest()
    opset = translated.opset
    return OnnxFile(path=path, bytes=len(content), sha256=digest, opset=opset, parity=parity)
