# SPDX-License-Identifier: Apache-2.0
"""The captured graph in the form that OpenVINO's PyTorch frontend converts, with every node still known.

`prepare` copies the program's graph: parameters become attributes, attention becomes one call that has no
NaN in it, and each tensor of the original passes through a `tap`, whose place in the output says whose
it is. Whatever is rewritten afterwards, by us or by others, the taps keep the original's names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from paritas.errors import LoweringError
from paritas.lower.openvino.rewrite import DECOMPOSITIONS, rewrite
from paritas.program import Program

_aten = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A graph to convert; its outputs are `taps`, one per name."""

    module: GraphModule
    taps: tuple[str, ...]  # the node of the program that each output of `module` is
    placeholders: tuple[str, ...]  # one per input of the program, in its order
    outputs: tuple[str, ...]  # one per output of the program, in its order


# --- the calls that only our translations know: frontend.py turns them into OpenVINO's operators ------


def tap(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, under a name that no other node shares."""
    return tensor


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    causal: bool,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of [batch, heads, length, width] with an additive mask that is finite everywhere."""
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, mask, scale=scale, is_causal=causal
    )


def finite_mask(mask: torch.Tensor) -> torch.Tensor:
    """A boolean or additive mask as an additive one whose smallest value survives a cast to bfloat16."""
    if mask.dtype == torch.bool:
        return torch.where(mask, 0.0, SMALLEST)
    return torch.clamp(mask, min=SMALLEST)


def attended_rows(mask: torch.Tensor) -> torch.Tensor:
    """1.0 for each row of a mask that lets anything through, 0.0 for the others: [..., rows, 1]."""
    alive = mask if mask.dtype == torch.bool else mask > -torch.inf
    return alive.any(-1, keepdim=True).float()


#: The lowest value of a mask: just above bfloat16's minimum, so that no rounding makes it -inf.
SMALLEST = -3.38e38


#: Operators that the frontend has under another name only, with the same arguments.
_EQUIVALENTS: dict[Any, Any] = {
    _aten.reshape.default: _aten.view.default,
    _aten._unsafe_view.default: _aten.view.default,
    _aten.matmul.default: _aten.bmm.default,
}

# --- the graph -----------------------------------------------------------------------------------------


def prepare(program: Program, taps: Collection[str] | None = None) -> Prepared:
    """A copy of the program's graph, ready to convert. Neither the program nor its tensors are touched.

    `taps`: the nodes to keep track of besides the outputs; None: all of them.
    """
    exported = program.exported
    specs = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    graph, copies, tensors = Graph(), {}, {}
    placeholders: list[str] = []
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            spec = specs[node.name]
            if spec.kind != InputKind.USER_INPUT:
                tensors[node.name] = _lifted(exported, spec.target)
                copies[node] = graph.create_node("get_attr", node.name, name=node.name)
            elif isinstance(spec.arg, ConstantArgument):
                continue  # an argument that was fixed while capturing: nothing reads it
            else:
                copies[node] = graph.create_node("placeholder", node.target, name=node.name)
                # "input" is a builtin of Python: it comes out as "input_1".
                placeholders.append(copies[node].name)
            copies[node].meta = dict(node.meta)
        elif node.op == "get_attr":
            tensors[node.target] = operator.attrgetter(node.target)(exported.graph_module)
            copies[node] = graph.node_copy(node)
        elif node.op == "call_function":
            if not _is_assertion(node):
                copies[node] = graph.node_copy(node, copies.__getitem__)
        elif node.op == "output":
            outputs = [
                copies[value]
                for value, spec in zip(node.args[0], exported.graph_signature.output_specs, strict=True)
                if spec.kind == OutputKind.USER_OUTPUT and isinstance(value, Node)
            ]
    names = [copy.name for copy in outputs]
    tapped = {copy.name: copy for copy in outputs}
    for node, copy in copies.items():
        if node.op == "call_function" and (taps is None or node.name in taps) and _is_real_tensor(node):
            tapped.setdefault(copy.name, copy)
    graph.output(tuple(graph.call_function(tap, (copy,)) for copy in tapped.values()))
    for copy in copies.values():
        # The frontend wants a name that ends in a number; ours come back with the taps.
        if copy.op == "call_function":
            copy._rename(f"{copy.name}_0")
    module = GraphModule(tensors, graph)
    for node in graph.nodes:
        node.target = _EQUIVALENTS.get(node.target, node.target)
    _widen(graph)
    rewrite(module)
    _rewrite_attention(module)
    return Prepared(module, tuple(tapped), tuple(placeholders), tuple(names))


def _lifted(exported: torch.export.ExportedProgram, target: str) -> Any:
    held = exported.state_dict if target in exported.state_dict else exported.constants
    value = held[target]
    if isinstance(value, torch.Tensor) and value.dtype in _HALF:
        value = value.float()
    # The model reads the weights in place, and only from a contiguous host tensor that somebody keeps.
    return value.detach().cpu().contiguous() if isinstance(value, torch.Tensor) else value


def _is_assertion(node: Node) -> bool:
    return "_assert" in str(node.target) or str(node.target).startswith("aten.sym_constrain_range")


def _is_real_tensor(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and not value.is_complex()


_HALF = (torch.bfloat16, torch.float16)


def _widen(graph: Graph) -> None:
    """Make a graph that was captured in 16 bits a float32 one: the engine chooses its own precision."""

    def wide(value: Any) -> Any:
        return torch.float32 if isinstance(value, torch.dtype) and value in _HALF else value

    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and value.dtype in _HALF:
            node.meta["val"] = value.float()
        node.args = tuple(wide(argument) for argument in node.args)
        node.kwargs = {name: wide(argument) for name, argument in node.kwargs.items()}


# --- attention -----------------------------------------------------------------------------------------


_ATTENTION_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


def _rewrite_attention(module: GraphModule) -> None:
    """Replace each `scaled_dot_product_attention` by one that is right where a row attends to nothing.

    OpenVINO's own gives NaN there, or where the mask's minimum becomes -inf in bfloat16; torch gives 0
    for a row of False or -inf, and the mean for a row of a finite minimum. So masks are made finite, and
    the rows that see nothing are multiplied by 0. Each mask is prepared once, for all its layers.
    """
    masks: dict[Node, tuple[Node, Node]] = {}
    graph = module.graph
    for node in graph.find_nodes(op="call_function", target=_aten.scaled_dot_product_attention.default):
        given = dict(zip(_ATTENTION_ARGUMENTS, node.args, strict=False))
        given.update(node.kwargs)
        query, key, value, mask = given["query"], given["key"], given["value"], given.get("attn_mask")
        width = query.meta["val"].shape[-1]
        scale = given.get("scale")
        if scale is None:
            scale = float(width) ** -0.5
        with graph.inserting_before(node):
            key, value = _repeat_heads(graph, query, key), _repeat_heads(graph, query, value)
            arguments = [query, key, value, scale, bool(given.get("is_causal", False))]
            if mask is not None:
                if mask not in masks:
                    with graph.inserting_after(mask):
                        rows = graph.call_function(attended_rows, (mask,), name=f"{mask.name}_rows_0")
                        finite = graph.call_function(finite_mask, (mask,), name=f"{mask.name}_finite_0")
                    masks[mask] = (finite, rows)
                arguments.append(masks[mask][0])
            result = graph.call_function(attention, tuple(arguments), name=f"{node.name}_whole_0")
            result.meta = dict(node.meta)
            if mask is not None:
                product = (result, masks[mask][1])
                result = graph.call_function(_aten.mul.Tensor, product, name=f"{node.name}_rows_0")
                result.meta = dict(node.meta)
        node.replace_all_uses_with(result)
        graph.erase_node(node)
    module.recompile()


def _repeat_heads(graph: Graph, query: Node, node: Node) -> Node:
    """Grouped-query attention: `node`, [..., heads, length, width], with as many heads as `query` has."""
    shape, heads = node.meta["val"].shape, query.meta["val"].shape[-3]
    if len(shape) != 4 or not isinstance(heads, int) or not isinstance(shape[1], int) or shape[1] == heads:
        return node
    batch, length = (graph.call_function(_aten.sym_size.int, (node, dim)) for dim in (0, 2))
    wide = graph.call_function(_aten.unsqueeze.default, (node, 2))
    sizes = [batch, shape[1], heads // shape[1], length, shape[3]]
    wide = graph.call_function(_aten.expand.default, (wide, sizes))
    return graph.call_function(_aten.view.default, (wide, [batch, heads, length, shape[3]]))


# --- operators that the frontend does not know ---------------------------------------------------------


def decompose(module: GraphModule, targets: Collection[str]) -> bool:
    """Replace every node whose operator is among `targets` by what torch makes of it. False: nothing changed.

    The replaced node's users, its tap among them, read the last node of the replacement.
    """
    nodes = [n for n in module.graph.nodes if n.op == "call_function" and str(n.target) in targets]
    changed = [_expand(module, node) for node in nodes]
    if any(changed):
        module.graph.lint()
        module.recompile()
    return any(changed)


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    """What torch makes of an LSTM is oneDNN's own layer otherwise, which nobody could convert."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def _expand(module: GraphModule, node: Node) -> bool:
    from torch._decomp import get_decompositions
    from torch._dispatch.python import enable_python_dispatcher
    from torch._guards import detect_fake_mode
    from torch.fx.experimental.proxy_tensor import make_fx

    sources = node.all_input_nodes
    values = [source.meta.get("val") for source in sources]
    mode = detect_fake_mode([*values, node.meta.get("val")])
    target = node.target
    if mode is None or None in values or not isinstance(target, torch._ops.OpOverload):
        return False

    def call(*values: Any) -> Any:
        env = dict(zip(sources, values, strict=True))
        return target(*map_arg(node.args, env.__getitem__), **map_arg(node.kwargs, env.__getitem__))

    table: Any = {**get_decompositions([target]), **DECOMPOSITIONS}
    try:
        with torch.no_grad(), _without_onednn(), mode, enable_python_dispatcher():
            part = make_fx(call, decomposition_table=table, tracing_mode="real")(*values)
    except Exception:  # noqa: BLE001 - whatever torch cannot trace stays, and the frontend says what it is
        return False
    if any(n.target == node.target for n in part.graph.nodes):
        return False
    env: dict[Node, Node] = {}
    with module.graph.inserting_before(node):
        for inner in part.graph.nodes:
            if inner.op == "placeholder":
                env[inner] = sources[len(env)]
            elif inner.op == "get_attr":
                name = f"{node.name}{inner.target}"
                setattr(module, name, getattr(part, inner.target))
                env[inner] = module.graph.get_attr(name)
            elif inner.op == "call_function":
                env[inner] = module.graph.node_copy(inner, env.__getitem__)
                env[inner]._rename(f"{node.name}_{len(env)}")
            elif inner.op == "output":
                result = map_arg(inner.args[0], env.__getitem__)
    if isinstance(result, Node):
        node.replace_all_uses_with(result)
    else:
        for user in list(node.users):
            if user.target is not operator.getitem:
                raise LoweringError(f"openvino cannot lower {node.target}: its result is used as a whole.")
            user.replace_all_uses_with(result[user.args[1]])
            module.graph.erase_node(user)
    module.graph.erase_node(node)
    return True
