"""Take out of a traced network what removed layers leave behind: nothings, zeros and constants.

A branch that is gone leaves tensors of no channels, which are concatenated, and constants of full
size, which are added. Neither does any work, but a runtime would still run it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.fx.node import map_arg

aten = torch.ops.aten
NAME = "removed_constant_{}"  # of the constants that are added
ZEROS = (aten.new_zeros.default, aten.zeros.default)
# They give for one value that is repeated what they give for all, repeated. Pointwise operations,
# which torch tags, do so too.
NORMS = (aten._native_batch_norm_legit_no_training.default,)  # of batches, in eval mode
REPEATING = (
    *NORMS,
    operator.getitem,
    aten.adaptive_avg_pool2d.default,
    aten.clone.default,
    aten.dropout.default,
    aten.mean.dim,
    aten.permute.default,
    aten.transpose.int,
    aten.unsqueeze.default,
)
SHAPING = (aten.view.default, aten.reshape.default)  # of parameters
IDEMPOTENT = (aten.relu.default, aten.relu6.default)


def simplified(program: ExportedProgram) -> ExportedProgram:
    """Return a network that computes the same without what removed layers leave behind.

    ``program`` is not changed. No operation of the result works in place.

    - Tensors without channels are not concatenated.
    - A constant that is the same for all images is computed here, and added as it is, not first
      repeated for each image and position.
    - Zeros are not added, and no second ReLU follows a ReLU.
    - Parameters and buffers that nothing reads are left out.
    """
    program = program.run_decompositions({})
    constants = _Constants(program)
    for node in list(program.graph.nodes):
        if node.op != "call_function" or _is_empty(node):
            continue
        if node.target is aten.cat.default:
            _join_fewer(node)
        elif node.target is aten.slice.Tensor and _alike(node, _first(node)):
            node.replace_all_uses_with(_first(node))  # x[:, None] takes all images
        elif node.target in IDEMPOTENT and _first(node).target is node.target:
            node.replace_all_uses_with(_first(node))
        elif not constants.find(node) and _is_pointwise(node):
            constants.spread_nothing(node)
    program.graph.eliminate_dead_code()
    _drop_unread(program)
    program.graph_module.recompile()
    program.validate()  # type: ignore[no-untyped-call]  # torch has no types here
    return program


class _Constants:
    """Values that do not depend on the images, each as small as it can be repeated from."""

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        signature = program.graph_signature
        stored = {**program.constants, **program.state_dict}
        names = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self._values: dict[Node, Any] = {
            node: stored[names[node.name]].detach()
            for node in program.graph.nodes
            if node.op == "placeholder" and node.name in names
        }
        self._repeated: set[Node] = set()
        self._lifted: dict[Node, Node] = {}

    @torch.no_grad()
    def find(self, node: Node) -> bool:
        """Return whether the value of the node is constant, and record it if so."""
        shape = _shape(node)
        if node.target in ZEROS and shape:
            self._values[node] = torch.zeros([1] * len(shape), dtype=node.meta["val"].dtype)
            self._repeated.add(node)
        elif node.target is aten.expand.default and _first(node) in self._values:
            value = self._values[_first(node)]
            self._values[node] = value.reshape([1] * (len(shape) - value.ndim) + [*value.shape])
            self._repeated.add(node)
        elif self._follows(node):
            args: Any = map_arg(node.args, self._values.__getitem__)
            kwargs: Any = map_arg(node.kwargs, self._values.__getitem__)
            if node.target in NORMS:
                # one number for all channels becomes one for each
                channels = _shape(_first(node))[1]
                args = (args[0].expand(-1, channels, *args[0].shape[2:]), *args[1:])
            assert callable(node.target)
            self._values[node] = node.target(*args, **kwargs)
        return node in self._values

    def _follows(self, node: Node) -> bool:
        """Return whether the node can be computed from known values, and record if it repeats."""
        inputs = node.all_input_nodes
        repeats = not self._repeated.isdisjoint(inputs)
        able = _is_pointwise(node) or node.target in (*REPEATING, *(() if repeats else SHAPING))
        if not able or not inputs or any(part not in self._values for part in inputs):
            return False
        if repeats:
            self._repeated.add(node)
        return True

    def spread_nothing(self, node: Node) -> None:
        """Change the graph: a pointwise operation reads its constants unrepeated, if any."""
        like = [n for n in node.all_input_nodes if n not in self._values and _alike(n, node)]
        constants = [n for n in node.all_input_nodes if n in self._repeated]
        if not like or not constants:
            return
        zero = not any(bool(self._values[constant].any()) for constant in constants)
        if node.target is aten.add.Tensor and zero:
            node.replace_all_uses_with(like[0])
            return
        for constant in constants:
            node.replace_input_with(constant, self._lift(constant))

    def _lift(self, node: Node) -> Node:
        """Change the program: return an input of it that holds this constant."""
        if node in self._lifted:
            return self._lifted[node]
        program, name = self._program, NAME.format(len(self._lifted))
        specs = program.graph_signature.input_specs
        at = next(i for i, spec in enumerate(specs) if spec.kind is InputKind.USER_INPUT)
        first = [n for n in program.graph.nodes if n.op == "placeholder"][at]
        with program.graph.inserting_before(first):
            lifted: Node = program.graph.placeholder(name)
        value = self._values[node].contiguous()
        lifted.meta["val"] = first.meta["val"].fake_mode.from_tensor(value, static_shapes=True)
        argument = TensorArgument(lifted.name)
        specs.insert(at, InputSpec(InputKind.CONSTANT_TENSOR, argument, name, persistent=None))
        program.constants[name] = value
        self._lifted[node] = lifted
        return lifted


def _shape(node: Node) -> tuple[int | torch.SymInt, ...]:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _is_empty(node: Node) -> bool:
    """Return whether the node gives a tensor without elements, whatever the batch size is."""
    return any(isinstance(size, int) and size == 0 for size in _shape(node))


def _alike(node: Node, other: Node) -> bool:
    """Return whether two nodes give tensors of the same shape and type, for any batch size."""
    one, two = _shape(node), _shape(other)
    return (
        len(one) == len(two)
        and all(statically_known_true(a == b) for a, b in zip(one, two, strict=True))
        and node.meta["val"].dtype == other.meta["val"].dtype
    )


def _first(node: Node) -> Node:
    """Return the first argument of an operation on a tensor."""
    first = node.args[0]
    assert isinstance(first, Node)
    return first


def _is_pointwise(node: Node) -> bool:
    return torch.Tag.pointwise in getattr(node.target, "tags", ())


def _join_fewer(node: Node) -> None:
    """Change the graph: a concatenation leaves out tensors without elements."""
    parts, *axis = node.args
    assert isinstance(parts, list)
    full = [part for part in parts if not _is_empty(part)]
    if len(full) == 1:
        node.replace_all_uses_with(full[0])
    else:
        node.args = (full, *axis)


def _drop_unread(program: ExportedProgram) -> None:
    """Change the program: parameters and buffers that nothing reads go."""
    signature = program.graph_signature
    for node, spec in list(_stored(program)):
        if not node.users:
            signature.input_specs.remove(spec)
            program.state_dict.pop(spec.target, None)
            program.constants.pop(spec.target, None)
            program.graph.erase_node(node)


def _stored(program: ExportedProgram) -> Iterator[tuple[Node, InputSpec]]:
    """Yield the inputs of the graph that hold parameters and buffers."""
    inputs = (node for node in program.graph.nodes if node.op == "placeholder")
    for node, spec in zip(inputs, program.graph_signature.input_specs, strict=True):
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            yield node, spec
