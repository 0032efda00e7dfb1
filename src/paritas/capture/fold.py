# SPDX-License-Identifier: Apache-2.0
"""Constant folding: what no input reaches is computed once, by PyTorch, when the model is captured.

Frequencies of position encodings are the case that matters: an angle of 1000 radians amplifies the last bit
of `exp` a thousand times, so an engine's own `exp` cannot agree with PyTorch's there, and need not.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Node
from torch.fx.node import map_arg

from paritas.capture.origin import levels, origin

#: Larger results are computed where they are used.
ELEMENTS = 2**20

#: What only makes, shapes or converts: left alone, since engines do these as well, and sources read better.
_PLAIN = re.compile(
    r"aten\.(arange|zeros|ones|full|empty|scalar_tensor|eye|linspace|view|reshape|unsqueeze|squeeze|expand|permute"
    r"|transpose|t|clone|_to_copy|to|slice|select|alias|lift_fresh_copy|detach|contiguous|new_zeros|new_ones|new_full"
    r"|flatten|unflatten|repeat|cat|stack|triu|tril|flip|zeros_like|ones_like|full_like|broadcast_to|expand_as"
    r"|view_as|split|chunk|unbind|roll|pad|constant_pad_nd|tile|meshgrid)\."
)


def fold_constants(program: ExportedProgram) -> None:
    """Replace what depends on no input, no parameter and no dynamic size by its value."""
    known = _constants(program)
    folded: set[Node] = set()
    computed: set[Node] = set()  # and of these, what is more than made and shaped
    for node in program.graph.nodes:
        if node.op != "call_function" or not _is_fixed(node):
            continue
        sources = node.all_input_nodes
        if not all(source in known for source in sources):
            continue
        value = _value(node, known)
        if value is None:
            continue
        known[node] = value
        folded.add(node)
        if not _PLAIN.match(str(node.target)) or any(source in computed for source in sources):
            computed.add(node)
    for node in [n for n in program.graph.nodes if n in computed]:
        outside = [user for user in node.users if user not in folded]
        if outside and isinstance(known[node], torch.Tensor):
            _replace(program, node, known[node])
    program.graph.eliminate_dead_code()
    _forget_unused(program)


def _constants(program: ExportedProgram) -> dict[Node, Any]:
    """The values of lifted constants and of buffers that no checkpoint has."""
    signature = program.graph_signature
    values = {**program.state_dict, **program.constants}
    mutated = set(signature.buffers_to_mutate.values())
    found: dict[Node, Any] = {}
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        name = signature.inputs_to_lifted_tensor_constants.get(node.name)
        buffer = signature.inputs_to_buffers.get(node.name)
        if name is None and buffer in signature.non_persistent_buffers and buffer not in mutated:
            name = buffer
        if name is not None and type(values.get(name)) in (torch.Tensor, torch.nn.Buffer):
            found[node] = values[name].detach()
    return found


def _is_fixed(node: Node) -> bool:
    """An operator of tensors without randomness, whose result has a size that is known and small."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return False
    if torch.Tag.nondeterministic_seeded in target.tags or target._schema.is_mutable:
        return False
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return False
    return all(isinstance(size, int) for size in value.shape) and value.numel() <= ELEMENTS


def _value(node: Node, known: dict[Node, Any]) -> torch.Tensor | None:
    args = map_arg(node.args, known.__getitem__)
    kwargs = map_arg(dict(node.kwargs), known.__getitem__)
    try:
        with torch.no_grad():
            value = node.target(*args, **kwargs)  # type: ignore[operator]
    except Exception:  # noqa: BLE001 - whatever torch says of it: it stays in the graph
        return None
    return value.detach() if isinstance(value, torch.Tensor) else None


def _replace(program: ExportedProgram, node: Node, value: torch.Tensor) -> None:
    """A lifted constant in the place of `node`, under a name of the module that made it."""
    signature = program.graph_signature
    name = _name(program, node)
    program.constants[name] = value.clone(memory_format=torch.contiguous_format)
    first = next(
        (i for i, spec in enumerate(signature.input_specs) if spec.kind == InputKind.USER_INPUT),
        len(signature.input_specs),
    )
    placeholders = [n for n in program.graph.nodes if n.op == "placeholder"]
    before = placeholders[first] if first < len(placeholders) else None
    place = (
        program.graph.inserting_before(before)
        if before is not None
        else program.graph.inserting_after(placeholders[-1])
        if placeholders
        else program.graph.inserting_before(next(iter(program.graph.nodes)))
    )
    with place:
        made = program.graph.placeholder("c_" + re.sub(r"\W", "_", name))
    made.meta["val"] = node.meta["val"]
    spec = InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(made.name), name, None)
    signature.input_specs.insert(first, spec)
    node.replace_all_uses_with(made)
    for output in signature.output_specs:
        if getattr(output.arg, "name", None) == node.name:
            output.arg.name = made.name


def _name(program: ExportedProgram, node: Node) -> str:
    stack = levels(node)
    path = f"{stack[-1].path}." if stack and stack[-1].path else ""
    assigned = re.match(r"([A-Za-z]\w*)\s*=[^=]", origin(node).text or "")
    hint = assigned.group(1) if assigned else re.sub(r"_\d+$", "", node.name).lstrip("_") or "constant"
    taken = {*program.constants, *program.state_dict}
    modules = {level.path for other in program.graph.nodes for level in levels(other)}
    name, count = f"{path}{hint}", 0
    while name in taken or name in modules or any(t.startswith(f"{name}.") for t in taken):
        count += 1
        name = f"{path}{hint}_{count}"
    return name


def _forget_unused(program: ExportedProgram) -> None:
    """Lifted constants that were read by folded nodes only."""
    signature = program.graph_signature
    for node in [n for n in program.graph.nodes if n.op == "placeholder" and not n.users]:
        name = signature.inputs_to_lifted_tensor_constants.get(node.name)
        if name is not None:
            spec = next(s for s in signature.input_specs if getattr(s.arg, "name", None) == node.name)
            signature.input_specs.remove(spec)
            program.constants.pop(name, None)
            program.graph.erase_node(node)
