"""Layer times of a network as it would be deployed: run and profiled on the runtime."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
from torch import Tensor, nn

from slimnet.execution import can_fold, folded, normed_layers, removed_layers
from slimnet.export.onnx_file import Translated, onnx_parity, translate, write_onnx
from slimnet.export.tracing import evaluation_copy
from slimnet.options import OutputOptions
from slimnet.records import Inputs
from slimnet.search import LayerTimer, widths_of
from slimnet.tasks import fill_batch, forward
from slimnet.timing import RUNTIMES, TRANSPOSED_WEIGHT, TimedNetwork, recall, remember

# Images in a profiled batch. A guess between the default batch sizes of the latency, 1 and 32.
PROFILE_IMAGES = 8
FILE = "layer_times_1.json"  # the number is raised whenever something else is measured
WEIGHT = ".weight"
FOLDED_BIAS = ".weight_bias"
"""The exporter's name for the bias of a layer that has none, but takes in a batch norm."""


@dataclass(frozen=True)
class _Measured:
    """Milliseconds of each layer of a network, and of the original beside it (0: not timed)."""

    layers_ms: Mapping[str, float]
    original_ms: float = 0.0


def layer_timer(original: Translated, options: OutputOptions) -> LayerTimer:
    """Return a function from a network, which it does not change, to milliseconds by layer name.

    The example is repeated to a batch of 8. The options ``runtime``, ``threads`` and ``cache`` are
    read. The times go into the user's cache folder. With ``cache``, a network of the same operators
    and widths, whatever its weights, is not timed again on this machine.

    For a runtime that reads ONNX, the previous file is first tried with this network's weights. If
    it does not compute the same, the network is exported again. The original is timed alongside,
    and all times are scaled to the machine's speed at the first call. Where the original takes any
    size, all are translated for that of the example alone.
    """
    if original.free_size:
        original = translate(original.model, original.example, original.opset)
    runtime = RUNTIMES[options.runtime]
    batch, two_images = (fill_batch(original.example, images) for images in (PROFILE_IMAGES, 2))
    last, first_ms = original, 0.0

    def measure(network: nn.Module) -> _Measured:
        nonlocal last
        if not runtime.reads_onnx:
            timed = TimedNetwork(module=lambda device: network)
            return _Measured(runtime.layer_times([timed], batch, options.threads)[0])
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("original.onnx", "profiled.onnx")]
            files[0].write_bytes(original.proto.SerializeToString())
            same_layers = removed_layers(network).keys() == removed_layers(last.model).keys()
            if not same_layers or not write_reweighted(last.proto, network, two_images, files[1]):
                last = translate(network, two_images, original.opset)
                write_onnx(last, files[1], {}, check_batches=())
            networks = [TimedNetwork(file) for file in files]
            before, after = runtime.layer_times(networks, batch, options.threads)
        return _Measured(after, sum(before.values()))

    def time_layers(network: nn.Module) -> Mapping[str, float]:
        nonlocal first_ms
        network_sha256 = _sha256_without_weights(original.proto.graph, widths_of(network))
        key = f"{runtime.measured_on(options.threads)}, network {network_sha256}"
        measured = recall(FILE, key, _Measured) if options.cache else None
        if measured is None:
            measured = measure(network)
            remember(FILE, key, asdict(measured))
        now_ms = measured.original_ms
        first_ms = first_ms or now_ms
        pace = first_ms / now_ms if now_ms else 1.0
        return {name: milliseconds * pace for name, milliseconds in measured.layers_ms.items()}

    return time_layers


def _sha256_without_weights(graph: onnx.GraphProto, widths: object) -> str:
    """Return one hash of operators, names and shapes, whatever the weights, and of ``widths``."""
    found = hashlib.sha256(repr(widths).encode())
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info):
        found.update(part.SerializeToString(deterministic=True))
    for value in graph.initializer:
        # whole numbers are shapes and indices
        numbers = value.raw_data if value.data_type == onnx.TensorProto.INT64 else b""
        found.update(repr((value.name, list(value.dims), value.data_type, numbers)).encode())
    return found.hexdigest()


def write_reweighted(proto: onnx.ModelProto, model: nn.Module, inputs: Inputs, path: Path) -> bool:
    """Write the ONNX ``proto`` with the weights of ``model``; return whether it is that network.

    Neither of the two is changed. They are compared on ``inputs`` (images, ...). They differ if the
    network's code has written widths into the ONNX, such as the shape of a reshape.
    """
    try:
        path.write_bytes(_reweighted(proto, evaluation_copy(model), inputs).SerializeToString())
        onnx_parity(model, path, inputs)
    except Exception:  # a network that is unlike its file in any way has to be translated
        return False
    return True


def _reweighted(proto: onnx.ModelProto, model: nn.Module, inputs: Inputs) -> onnx.ModelProto:
    """Return the file with the model's weights, batch norms folded as in the file."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    model = _fold_norms(model, inputs, {value.name for value in changed.graph.initializer})
    values, modules = model.state_dict(), dict(model.named_modules())
    for value in changed.graph.initializer:
        if (weights := _weights_named(value.name, values)) is not None:
            array = weights.detach().contiguous().numpy()
            value.CopyFrom(onnx.numpy_helper.from_array(array, value.name))
    for node in changed.graph.node:
        for attribute in node.attribute:
            if attribute.name == "group":
                layer = modules.get(node.input[1].removesuffix(WEIGHT))
                attribute.i = getattr(layer, "groups", attribute.i)
    _flatten_any_width(changed)
    del changed.graph.value_info[:]  # shapes on the way
    return changed


def _weights_named(name: str, values: Mapping[str, Tensor]) -> Tensor | None:
    """Return the weights that a file calls so; None if they are none of the network's."""
    if name.endswith(TRANSPOSED_WEIGHT):
        weights = values.get(name.removesuffix(TRANSPOSED_WEIGHT) + WEIGHT)
        return weights if weights is None else weights.T
    if name.endswith(FOLDED_BIAS):
        name = name.removesuffix(FOLDED_BIAS) + ".bias"
    return values.get(name)


def _flatten_any_width(proto: onnx.ModelProto) -> None:
    """Change a file: a reshape that makes one row of each image does so whatever its size."""
    shapes = {value.name: value.type.tensor_type.shape.dim for value in proto.graph.value_info}
    constants = {value.name: value for value in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type != "Reshape":
            continue
        if node.input[0] not in shapes or node.input[1] not in constants:
            continue
        sizes = [size.dim_value for size in shapes[node.input[0]]]
        rows = onnx.numpy_helper.to_array(constants[node.input[1]]).tolist()
        if rows == [-1, math.prod(sizes[1:])]:
            del node.attribute[:]
            node.op_type, node.input[:] = "Flatten", node.input[:1]


def _fold_norms(model: nn.Module, inputs: Inputs, in_file: set[str]) -> nn.Module:
    """Return a copy whose layers take in the batch norm behind them that is not in the file."""
    pairs = normed_layers(model, lambda: forward(model, inputs))
    return folded(
        model,
        {
            layer: norm
            for layer, norm in pairs
            if f"{norm}.running_mean" not in in_file
            and can_fold(model.get_submodule(layer), model.get_submodule(norm))
        },
    )
