# SPDX-License-Identifier: Apache-2.0
"""A captured graph without mutation, in the same operators.

`run_decompositions({})` does this for any graph by tracing it once more, which is half the time of a capture.
Most graphs mutate nothing, or only tensors that they have just made, as `buckets += offset` does: for those it is
enough to write the few operators that it would have replaced.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._guards import detect_fake_mode
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node
from torch.fx.node import map_arg

from paritas.errors import CaptureError

aten = torch.ops.aten

#: Operators of inference that are the identity, or a cast where the dtype changes.
_CASTS = {"aten.to.dtype", "aten.to.dtype_layout", "aten.to.device", "aten.to.other", "aten.type_as.default"}
#: And what only says that no gradient goes on from here: the empty tensors that a cache begins with are made so.
_DETACHED = "aten.detach_.default"
_DROPOUTS = {
    "aten.dropout.default",
    "aten.feature_dropout.default",
    "aten.alpha_dropout.default",
    "aten.feature_alpha_dropout.default",
}

#: What writes a result into a tensor, whose dtype that may not be; and what writes values of its dtype.
_ARITHMETIC = {"add_", "sub_", "mul_", "div_", "clamp_"}
_VALUES = {"masked_fill_", "index_put_", "fill_"}
#: Composite operators that compute in any case.
_COMPUTE = {aten.linear.default, aten.matmul.default, aten.layer_norm.default}


def functional(program: ExportedProgram) -> tuple[ExportedProgram, list[str]]:
    """`program` with no operator that writes into its argument, and what it no longer does.

    The graph may be changed in place. Raises `CaptureError` for a model that leaves something behind for its next
    call.
    """
    if not _mutates_nothing(program):
        _same_memory(program.graph)
        _write_anew(program.graph)
        program.graph_module.recompile()
    if not _mutates_nothing(program):
        program = program.run_decompositions({})
        _measure_again(program)
        return program, _drop_what_is_written(program)
    graph = program.graph
    for node in list(graph.nodes):
        name = str(node.target) if node.op == "call_function" else ""
        if name in _CASTS:
            source: Any = node.args[0]
            node.args, node.kwargs = (source,), {"dtype": node.meta["val"].dtype}
            node.target = aten._to_copy.default
        elif name == _DETACHED or (name in _DROPOUTS and not node.args[2]):
            node.target, node.args, node.kwargs = aten.alias.default, (node.args[0],), {}
        elif name == "aten.chunk.default":
            _split(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program, []


def _same_memory(graph: torch.fx.Graph) -> None:
    """A dropout of inference returns its input itself: who writes into one writes into both, which torch forgets."""
    for node in list(graph.nodes):
        if str(node.target) in _DROPOUTS and not node.args[2]:
            for user in [user for user in node.users if user.op != "output"]:
                user.replace_input_with(node, node.args[0])
            if not node.users:
                graph.erase_node(node)


def _write_anew(graph: torch.fx.Graph) -> None:
    """Give what writes into a tensor of its own a new tensor, where no other name of that memory is read."""
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        twin, written = _twin(node), node.args[0] if node.args else None
        if twin is None or not isinstance(written, Node) or not _is_fresh(written):
            continue
        others = [user for user in written.users if user is not node]
        if any(user.op == "output" or (order[user] < order[node] and not _is_fresh(user)) for user in others):
            continue
        node.target = twin
        node._rename(str(twin._schema.name).partition("::")[2])
        for user in others:
            if order[user] > order[node]:
                user.replace_input_with(written, node)


def _twin(node: Node) -> Any:
    """The operator that returns what this one writes, of the same dtype; None if there is none that is sure to."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten" or not target._schema.is_mutable:
        return None
    name = target._schema.name.partition("::")[2]
    given = [source.meta.get("val") for source in node.all_input_nodes]
    if name not in _ARITHMETIC | _VALUES or node.kwargs or not all(isinstance(value, torch.Tensor) for value in given):
        return None
    twin = getattr(getattr(aten, name[:-1]), target._overloadname)
    if name in _VALUES:
        return twin
    few = map_arg(node.args, lambda source: source.meta["val"].new_empty([1] * source.meta["val"].dim(), device="meta"))
    return twin if twin(*few).dtype == node.meta["val"].dtype else None


def _is_fresh(node: Node) -> bool:
    """Whether what a node returns is sure to be memory of its own."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not isinstance(node.meta.get("val"), torch.Tensor):
        return False
    if target._can_decompose():  # what these return may be what they were given: a dropout, a pad of nothing
        return target in _COMPUTE
    return not target._schema.is_mutable and all(result.alias_info is None for result in target._schema.returns)


def _measure_again(program: ExportedProgram) -> None:
    """Torch 2.13 measures composite operators with default arguments then: a loss of each row is one number."""
    nodes = [node for node in program.graph.nodes if _is_composite(node.target)]
    mode = detect_fake_mode([node.meta.get("val") for node in program.graph.nodes])
    if mode is None:
        return
    for node in nodes:
        arguments, options = map_arg((node.args, node.kwargs), lambda source: source.meta["val"])
        try:
            with mode, torch.no_grad():
                found = node.target(*arguments, **options)
        except Exception:  # noqa: BLE001 - it has no sizes that are known beforehand
            continue
        told = node.meta.get("val")
        if isinstance(found, torch.Tensor) and isinstance(told, torch.Tensor) and found.dim() != told.dim():
            node.meta["val"] = found


def _is_composite(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._can_decompose()


def _drop_what_is_written(program: ExportedProgram) -> list[str]:
    """Inputs and buffers that were written are outputs of the graph: they are dropped, and what a user must know said.

    `self.table = self.table.to(x.device)` is nothing else. A buffer that no output depends on, as the statistics of
    a normalisation in training mode, stays what it is. Raises `CaptureError` for all others.
    """
    signature = program.graph_signature
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    inputs = {spec.arg.name: spec.target for spec in signature.input_specs if spec.kind is InputKind.BUFFER}
    kept, values, written = [], [], []
    for spec, value in zip(signature.output_specs, output.args[0], strict=True):
        if spec.kind is OutputKind.BUFFER_MUTATION:
            if inputs.get(spec.arg.name) != spec.target:
                written.append(str(spec.target))
        elif spec.kind is not OutputKind.USER_INPUT_MUTATION:
            kept.append(spec)
            values.append(value)
    if len(kept) == len(signature.output_specs):
        return []
    output.args = (tuple(values),)
    signature.output_specs[:] = kept
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    read = {inputs[n.name] for n in program.graph.nodes if n.op == "placeholder" and n.users and n.name in inputs}
    if refused := [name for name in written if name in read]:
        raise CaptureError(
            f"The model writes to its buffers {', '.join(refused[:5])}, and what it computes next depends on that: "
            "a port keeps nothing from one call to the next. Return the new value as an output instead."
        )
    if not written:
        return []
    return [f"the model writes to its buffers {', '.join(written[:5])}, which no output depends on: a port does not"]


def _mutates_nothing(program: ExportedProgram) -> bool:
    for node in program.graph.nodes:
        if node.op == "call_module" or node.op == "get_attr":
            return False  # a higher-order operator with a graph of its own
        if node.op != "call_function":
            continue
        target = node.target
        if isinstance(target, torch._ops.HigherOrderOperator):
            return False
        if isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable and str(target) != _DETACHED:
            return False
        if str(target) in _DROPOUTS and node.args[2]:
            return False
    return True


def _split(node: Node) -> None:
    """`chunk` as the `split` into parts of the size that the capture found, as torch itself decomposes it."""
    source: Any = node.args[0]
    dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    parts = node.meta["val"]
    size = parts[0].shape[dim]
    if not isinstance(size, int):
        return
    node.target, node.args, node.kwargs = aten.split.Tensor, (source, size, dim), {}
