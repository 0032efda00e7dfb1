# SPDX-License-Identifier: Apache-2.0
"""What an engine has no rule for, written in the operators that torch itself makes it of."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from paritas.capture import guards
from paritas.capture.modules import is_size
from paritas.capture.normalise import equal_inputs, name_of
from paritas.capture.specialize import with_own_graph
from paritas.errors import LoweringError
from paritas.program import Program

#: What a node is made of, by its exact overload.
Compositions = Mapping[str, Callable[..., Any]]


def decomposed(program: Program, known: Collection[str], ours: Compositions | None = None) -> Program:
    """`program` in which every node whose operator is not in `known` is made of operators that are, if torch can.

    Decompositions are taken as a whole: what cannot be written in known operators only stays as it is, and is what
    `preflight` calls missing. The last node of what stands for a node has its name; the others have `paritas_of`, the
    name of the node that they are a part of, in their meta, and no name of the program. `program` itself where nothing
    is missing; its graph is never changed. ours: functions to take instead of torch's own decompositions.
    """
    if not any(_is_missing(node, known) for node in program.graph.nodes):
        return program
    exported = with_own_graph(program.exported)
    module = exported.graph_module
    facts: list[guards.Fact] = []
    table = _table(known)
    for node in list(exported.graph.nodes):
        if _is_missing(node, known):
            part, asked = _part(program, node, known, table, ours or {})
            if part is not None:
                facts += asked
                _refuse_what_is_not_made(program, node, part)
                _put(exported, module, node, part)
    exported.graph.eliminate_dead_code()
    module.recompile()
    more = guards.as_guards(facts, equal_inputs(program.exported), program.sizes)
    return dataclasses.replace(
        program, exported=exported, guards=(*program.guards, *(g for g in more if g not in program.guards))
    )


#: What torch 2.13's own decompositions get wrong: labels after the first -1 count as if they were 0.
MISTAKEN = {"aten.multilabel_margin_loss.default", "aten.multilabel_margin_loss_forward.default"}


def _is_missing(node: Node, known: Collection[str]) -> bool:
    name = name_of(node)
    return bool(name) and name != "getitem" and name not in known and not is_size(node)


def _table(known: Collection[str]) -> dict[Any, Callable[..., Any]]:
    """Torch's decompositions of what is not known, so that engines see the largest operators that they have.

    What writes in place is made functional afterwards, and is known then by its own name.
    """
    everything = _everything(len(torch._C._dispatch_get_all_op_names()))
    return {op: how for op, how in everything.items() if str(op) not in known and not _is_mutable(op)}


@functools.lru_cache(maxsize=1)
def _everything(operators: int) -> dict[Any, Callable[..., Any]]:
    """Of `operators` that are registered: to go through them takes 70 ms."""
    import torch._refs  # noqa: F401 - registers decompositions of its own
    from torch._decomp import core_aten_decompositions, decomposition_table

    everything = dict(core_aten_decompositions())
    for name in list(decomposition_table):
        everything.setdefault(name, decomposition_table[name])
    return everything


def _part(
    program: Program,
    node: Node,
    known: Collection[str],
    table: Mapping[Any, Callable[..., Any]],
    ours: Compositions,
) -> tuple[GraphModule | None, list[guards.Fact]]:
    """A graph that computes the node from its sources, in known operators; None where there is none.

    And what a decomposition asked of free sizes: a window of L // 2 is the example's, once it is a number.
    """
    own = str(node.target)
    if not isinstance(node.target, torch._ops.OpOverload) or (own in MISTAKEN and own not in ours):
        return None, []
    mode = _fake_mode(node)
    if mode is None:
        return None, []
    before = guards.Before.of(mode.shape_env) if mode.shape_env is not None else None
    with guards.noted():
        part = _traced(node, mode, table, ours.get(str(node.target)))
    if part is None or any(_is_missing(inner, known) for inner in part.graph.nodes):
        return None, []
    if before is None:
        return part, []
    where = str(program.origin(node.meta.get("paritas_of", node.name)))
    return part, guards.found_since(program.exported, mode.shape_env, before, where)


def _is_mutable(op: Any) -> bool:
    return isinstance(op, torch._ops.OpOverload) and op._schema.is_mutable


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    """What torch makes of an LSTM is oneDNN's own layer otherwise, which no engine could convert."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def _fake_mode(node: Node) -> Any:
    """What makes tensors without values of what torch knows of the node; None where it knows nothing."""
    from torch._guards import detect_fake_mode

    values = [source.meta.get("val") for source in node.all_input_nodes]
    return None if None in values else detect_fake_mode([*values, node.meta.get("val")])


def _traced(node: Node, mode: Any, table: Any, whole: Callable[..., Any] | None) -> GraphModule | None:
    from torch._dispatch.python import enable_python_dispatcher
    from torch.fx.experimental.proxy_tensor import make_fx

    sources = node.all_input_nodes
    values = [source.meta.get("val") for source in sources]
    target: Any = whole or node.target

    def call(*given: Any) -> Any:
        env = dict(zip(sources, given, strict=True))
        arguments = map_arg(node.args, env.__getitem__), map_arg(node.kwargs, env.__getitem__)
        return target(*arguments[0], **arguments[1])

    if mode.shape_env is not None:
        # Sizes that torch made up earlier and that nothing returned: the next trace would be held to return them.
        mode.shape_env.pending_fresh_unbacked_symbols.clear()
    try:
        with torch.no_grad(), _without_onednn(), mode, enable_python_dispatcher():
            part = make_fx(call, decomposition_table=table, tracing_mode="real")(*values)
            if any(_writes(inner) for inner in part.graph.nodes):
                # A decomposition may write into what it has made; as a graph those writes would be lost.
                functional = torch.func.functionalize(part, remove="mutations_and_views")
                part = make_fx(functional, decomposition_table=table, tracing_mode="real")(*values)
    except Exception:  # noqa: BLE001 - whatever torch cannot trace stays, and is called missing by its name
        return None
    if any(inner.target == node.target or _writes(inner) for inner in part.graph.nodes):
        return None
    part.graph.eliminate_dead_code()
    return part


def _writes(node: Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _refuse_what_is_not_made(program: Program, node: Node, part: GraphModule) -> None:
    """Of an operator's results, `part` may leave out some (as None): a program that reads one cannot be lowered."""
    results = next(iter(reversed(part.graph.nodes))).args[0]
    if isinstance(results, Node):
        return
    kept = {spec.arg.name for spec in program.exported.graph_signature.output_specs if hasattr(spec.arg, "name")}
    for user in node.users:
        if user.target is not operator.getitem or results[user.args[1]] is not None:
            continue
        if user.users or user.name in kept:
            place = program.origin(node.meta.get("paritas_of", node.name))
            raise LoweringError(
                f"{name_of(node)} at {place}: its result number {user.args[1]} is read, and what it is written in has "
                "only the first. Use the first alone."
            )


def _put(exported: ExportedProgram, module: GraphModule, node: Node, part: GraphModule) -> None:
    """The nodes of `part` in the place of `node`."""
    sources = list(node.all_input_nodes)
    env: dict[Node, Node] = {}
    placeholders = iter(sources)
    made: list[Node] = []
    name = node.name
    owner = node.meta.get("paritas_of", name)
    about = {key: value for key, value in node.meta.items() if key != "val"}
    result: Any = None
    with exported.graph.inserting_before(node):
        for inner in part.graph.nodes:
            if inner.op == "placeholder":
                env[inner] = next(placeholders)
                continue
            if inner.op == "output":
                result = map_arg(inner.args[0], env.__getitem__)
                continue
            if inner.op == "get_attr":
                attribute = f"{name}_{inner.target}"
                setattr(module, attribute, getattr(part, inner.target))
                env[inner] = exported.graph.get_attr(attribute)
            else:
                env[inner] = exported.graph.node_copy(inner, env.__getitem__)
            env[inner].meta = {**about, "val": inner.meta.get("val"), "paritas_of": owner}
            made.append(env[inner])
    if isinstance(result, Node):
        _replace(exported, node, result, made)
    else:
        for user in list(node.users):
            if user.target is not operator.getitem:
                continue
            if result[user.args[1]] is None:
                exported.graph.erase_node(user)  # nobody reads it
            else:
                _replace(exported, user, result[user.args[1]], made)
        if not node.users:
            exported.graph.erase_node(node)


def _replace(exported: ExportedProgram, old: Node, new: Node, made: list[Node]) -> None:
    name, meta = old.name, dict(old.meta)
    old.replace_all_uses_with(new)
    if new in made:  # else it is one of the sources, or has a name already
        old._rename(f"{name}_whole")
        new.name, new.meta = name, meta
        made.remove(new)
    for spec in exported.graph_signature.output_specs:
        if getattr(spec.arg, "name", None) == name:
            spec.arg.name = new.name
    exported.graph.erase_node(old)
