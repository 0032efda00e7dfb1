# SPDX-License-Identifier: Apache-2.0
"""Constant folding: what no input reaches is computed once, by PyTorch, when the model is captured.

Frequencies of position encodings are one case that matters: an angle of 1000 radians amplifies the last bit
of `exp` a thousand times, so an engine's own `exp` cannot agree with PyTorch's there, and need not. Sizes that
are read out of constant tensors are the other: `split(sizes.tolist())` leaves sizes behind that only PyTorch knows.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Node
from torch.fx.node import map_arg

from paritas.capture.origin import levels, origin
from paritas.capture.symbolic_sizes import Sizes, bind, like, with_sizes

#: Larger results are computed where they are used.
ELEMENTS = 2**20

#: What only makes, shapes or converts: left alone, since engines do these as well, and sources read better.
_PLAIN = re.compile(
    r"aten\.(arange|zeros|ones|full|empty|scalar_tensor|eye|linspace|view|reshape|unsqueeze|squeeze|expand|permute"
    r"|transpose|t|clone|_to_copy|to|slice|select|alias|lift_fresh_copy|detach|contiguous|new_zeros|new_ones|new_full"
    r"|flatten|unflatten|repeat|cat|stack|triu|tril|flip|zeros_like|ones_like|full_like|broadcast_to|expand_as"
    r"|view_as|split|chunk|unbind|roll|pad|constant_pad_nd|tile|meshgrid)\."
)


def fold_constants(program: ExportedProgram, given: Mapping[Node, torch.Tensor] | None = None) -> None:
    """Replace what depends on no input, no parameter and no dynamic size by its value.

    given: inputs with the only values that they will ever have. They stay inputs, which nothing reads.
    """
    known: dict[Node, Any] = {**_constants(program), **(given or {})}
    sizes: Sizes = {}
    for node, value in (given or {}).items():
        bind(node.meta["val"], value, sizes)
    folded: set[Node] = set()
    computed: set[Node] = set()  # and of these, what is more than made and shaped
    for node in list(program.graph.nodes):
        if sizes and "val" in node.meta:
            node.meta["val"] = with_sizes(node.meta["val"], sizes)
        if node.op != "call_function" or not _is_pure(node):
            continue
        sources = node.all_input_nodes
        if not all(source in known or isinstance(source.meta.get("val"), int) for source in sources):
            _read_off_known_counts(program, node, known, sizes)
            continue
        value = _value(node, known)
        if value is None:
            continue
        bind(node.meta["val"], value, sizes)
        node.meta["val"] = with_sizes(node.meta["val"], sizes)
        known[node] = value
        folded.add(node)
        if not _PLAIN.match(str(node.target)) or any(source in computed for source in sources):
            computed.add(node)
    for node in [n for n in program.graph.nodes if n in computed or n in (given or {})]:
        outside = [user for user in node.users if user not in folded]
        if outside and isinstance(known[node], torch.Tensor):
            _replace(program, node, known[node], keep=node.op == "placeholder")
    _write_numbers(program)
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


def _is_pure(node: Node) -> bool:
    """Not random, and writes nothing: an operator of tensors, or the arithmetic of sizes."""
    target = node.target
    if target is operator.getitem:
        return True
    if not isinstance(target, torch._ops.OpOverload):
        return getattr(target, "__module__", "") == "_operator"
    if target.namespace != "aten":
        return False
    return torch.Tag.nondeterministic_seeded not in target.tags and not target._schema.is_mutable


def _value(node: Node, known: dict[Node, Any]) -> Any:
    """Tensors and whole numbers that `node` computes; None if torch refuses, or if they are large."""

    def value_of(source: Node) -> Any:
        return known[source] if source in known else source.meta["val"]

    shape = _shape(node.meta.get("val"))
    if not any(isinstance(size, torch.SymInt) for size in shape) and math.prod(shape) > ELEMENTS:
        return None
    try:
        with torch.no_grad():
            value = node.target(*map_arg(node.args, value_of), **map_arg(dict(node.kwargs), value_of))  # type: ignore[operator]
    except Exception:  # noqa: BLE001 - whatever torch says of it: it stays in the graph
        return None
    if isinstance(value, torch.Tensor):
        return value.detach()
    whole = isinstance(value, int) or (
        isinstance(value, tuple | list) and all(isinstance(part, torch.Tensor) for part in value)
    )
    return value if whole else None


def _shape(value: Any) -> Sequence[int | torch.SymInt]:
    parts = value if isinstance(value, tuple | list) else [value]
    return [size for part in parts if isinstance(part, torch.Tensor) for size in part.shape]


def _read_off_known_counts(program: ExportedProgram, node: Node, known: dict[Node, Any], sizes: Sizes) -> None:
    """`repeat_interleave(x, repeats)` and `x[mask]` of unknown x are gathers, if repeats and mask are known."""
    name = str(node.target)
    args: Any = node.args
    if name == "aten.repeat_interleave.self_Tensor" and args[1] in known:
        source = args[0]
        dim: Any = args[2] if len(args) > 2 else node.kwargs.get("dim")
        if dim is None and len(source.meta["val"].shape) != 1:
            return
        rows = torch.repeat_interleave(known[args[1]])
        index = _constant(program, node, rows, "rows")
        node.target, node.kwargs = torch.ops.aten.index_select.default, {}
        node.args = (source, dim or 0, index)
        bind(node.meta["val"].shape[dim or 0], len(rows), sizes)
    elif name == "aten.index.Tensor" and len(args[1]) == 1 and args[1][0] in known:
        mask = known[args[1][0]]
        if mask.dtype is not torch.bool:
            return
        places = mask.nonzero().unbind(1)
        node.args = (args[0], [_constant(program, node, place, "rows") for place in places])
        bind(node.meta["val"].shape[0], len(places[0]), sizes)
    else:
        return
    node.meta["val"] = with_sizes(node.meta["val"], sizes)


def _write_numbers(program: ExportedProgram) -> None:
    """Sizes that have become numbers are written where they are used."""
    numbers: dict[Node, Any] = {}
    for node in program.graph.nodes:
        number = with_sizes(node.meta.get("val"), {})
        if node.op == "call_function" and type(number) is int:
            numbers[node] = number
    for user in {user for node in numbers for user in node.users}:
        user.args = map_arg(user.args, lambda n: numbers.get(n, n))
        user.kwargs = map_arg(user.kwargs, lambda n: numbers.get(n, n))


def _replace(program: ExportedProgram, node: Node, value: torch.Tensor, *, keep: bool = False) -> None:
    """A lifted constant in the place of `node`; keep: the node stays, and nothing reads it."""
    made = _constant(program, node, value)
    node.replace_all_uses_with(made)
    for output in () if keep else program.graph_signature.output_specs:
        if getattr(output.arg, "name", None) == node.name:
            output.arg.name = made.name


def _constant(program: ExportedProgram, node: Node, value: torch.Tensor, hint: str = "") -> Node:
    """A lifted constant under a name of the module that `node` is of."""
    signature = program.graph_signature
    name = _name(program, node, hint)
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
    made.meta["val"] = like(node.meta["val"], value.shape, value.dtype) if hint else node.meta["val"]
    spec = InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(made.name), name, None)
    signature.input_specs.insert(first, spec)
    return made


def _name(program: ExportedProgram, node: Node, hint: str = "") -> str:
    stack = levels(node)
    path = f"{stack[-1].path}." if stack and stack[-1].path else ""
    assigned = re.match(r"([A-Za-z]\w*)\s*=[^=]", origin(node).text or "")
    plain = re.sub(r"_\d+$", "", node.name).lstrip("_") or "constant"
    hint = hint or (assigned.group(1) if assigned else plain)
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
