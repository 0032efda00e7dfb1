# SPDX-License-Identifier: Apache-2.0
"""Clean-ups that every engine shares, one small pass each: nodes that compute nothing disappear.

A pass takes an `ExportedProgram` and changes its graph in place. A node that stays keeps its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from paritas.capture.constant_folding import fold_constants
from paritas.capture.stored_sizes import stored_sizes_are_sizes

aten = torch.ops.aten

#: Checks of facts that the capture has already established.
ASSERTIONS = {
    "aten._assert_tensor_metadata.default",
    "aten._assert_scalar.default",
    "aten._assert_async.msg",
    "aten.sym_constrain_range_for_size.default",
    "aten.sym_constrain_range.default",
}

#: Operators that return their argument's values unchanged; the graph is functional, so sharing is safe.
ALIASES = {
    "aten.alias.default",
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.detach_.default",
    "aten.lift_fresh_copy.default",
}

WHOLE_DIMENSION = 2**63 - 1  # the end of a slice that was not given


def normalise(program: ExportedProgram) -> None:
    """Bring `program.graph` into normal form. The values of its outputs do not change."""
    for clean_up in PASSES:
        clean_up(program)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()


def drop_assertions(program: ExportedProgram) -> None:
    """Assertions repeat what the manifest says and what `check_feed` checks at the door."""
    for node in list(program.graph.nodes):
        if name_of(node) in ASSERTIONS:
            program.graph.erase_node(node)


def drop_aliases(program: ExportedProgram) -> None:
    """`clone`, `detach` and their kin: dropout in evaluation mode is exported as a clone."""
    for node in list(program.graph.nodes):
        if name_of(node) in ALIASES and not _lays_out_pairs(node):
            if not _lies_alike(node, node.args[0]):
                _lay_out_pairs(program.graph, node)
            replace(program, node, node.args[0])


def _lays_out_pairs(node: Node) -> bool:
    """The one operator that asks how its argument lies in memory is torch's `view_as_complex`."""
    return _is_laid_out(node) and any(name_of(user) == "aten.view_as_complex.default" for user in node.users)


def _is_laid_out(node: Any) -> bool:
    name = name_of(node)
    as_rows = node.kwargs.get("memory_format") == torch.contiguous_format
    return name == "aten.contiguous.default" or (name == "aten.clone.default" and as_rows)


def _lies_alike(a: Node, b: Any) -> bool:
    x, y = a.meta["val"], b.meta["val"]
    if not all(isinstance(one, torch.Tensor) and one.layout is torch.strided for one in (x, y)):
        return True
    return same_dims(x.stride(), y.stride())


def _lay_out_pairs(graph: torch.fx.Graph, node: Node) -> None:
    """The copy that laid out a tensor will go: another one stands in front of each pair of numbers that views it."""
    for user in list(node.users):
        if name_of(user) in _VIEWS or (name_of(user) in ALIASES and not _is_laid_out(user)):
            _lay_out_pairs(graph, user)
        elif name_of(user) == "aten.view_as_complex.default":
            with graph.inserting_before(user):
                copy = graph.call_function(
                    aten.clone.default, (user.args[0],), {"memory_format": torch.contiguous_format}
                )
            copy.meta = dict(user.args[0].meta)  # type: ignore[union-attr]
            user.args = (copy,)


_VIEWS = {
    f"aten.{name}"
    for name in (
        "view.default", "_unsafe_view.default", "reshape.default", "unflatten.int", "flatten.using_ints",
        "transpose.int", "permute.default", "select.int", "slice.Tensor", "unsqueeze.default", "squeeze.dim",
        "squeeze.dims", "expand.default", "movedim.int",
    )
}  # fmt: skip


def drop_identities(program: ExportedProgram) -> None:
    """Casts to the same dtype, slices of everything, expands and views to the same shape, `+ 0` on integers."""
    for node in list(program.graph.nodes):
        rule = _IDENTITIES.get(name_of(node))
        if rule is not None and rule(node):
            replace(program, node, node.args[0])


def _same_dtype(node: Node) -> bool:
    return node.args[0].meta["val"].dtype == node.meta["val"].dtype  # type: ignore[union-attr]


def _same_shape(node: Node) -> bool:
    return same_dims(node.args[0].meta["val"].shape, node.meta["val"].shape)  # type: ignore[union-attr]


def _adds_integer_zero(node: Node) -> bool:
    # Not for floats: -0.0 + 0 is 0.0.
    value = node.meta["val"]
    return bool(
        type(node.args[1]) is int and node.args[1] == 0 and not value.dtype.is_floating_point and _same_dtype(node)
    )


_IDENTITIES: dict[str, Callable[[Node], bool]] = {
    "aten._to_copy.default": _same_dtype,
    "aten.to.dtype": _same_dtype,
    "aten.type_as.default": _same_dtype,
    "aten.slice.Tensor": lambda node: _same_shape(node) and bool(len(node.args) < 5 or node.args[4] == 1),
    "aten.expand.default": _same_shape,
    "aten.view.default": _same_shape,
    "aten.reshape.default": _same_shape,
    "aten._unsafe_view.default": _same_shape,
    "aten.add.Tensor": _adds_integer_zero,
    "aten.sub.Tensor": _adds_integer_zero,
}


def gathers_of_whole_dimensions_are_views(program: ExportedProgram) -> None:
    """`mask[arange(B)[:, None, None, None], arange(K)]` is `mask.view(B, 1, 1, K)`: how attention masks are built.

    transformers builds masks by indexing with broadcast aranges, so that any mask function fits. A
    gather per mask is what it costs on engines that do not see through it; and sizes stay dynamic.

    The batch of the mask has a size of its own there, since only as many of its rows are read as there are
    ids. `equal_inputs` says which sizes a caller has to keep equal for that.
    """
    for node in list(program.graph.nodes):
        if name_of(node) != "aten.index.Tensor":
            continue
        source, indices = node.args
        sizes = source.meta["val"].shape
        if len(indices) != len(sizes) or any(i is None for i in indices):
            continue
        axes = [_arange_axis(index) for index in indices]
        rank = node.meta["val"].dim()
        if None in axes or any(i.meta["val"].dim() > rank for i in indices):
            continue
        counted = [i.meta["val"].shape[a] for i, a in zip(indices, axes, strict=True)]
        if not all(_may_equal(program, source, a, b) for a, b in zip(sizes, counted, strict=True)):
            continue
        # Axes counted from the right, because that is how indices broadcast.
        from_right = [index.meta["val"].dim() - axis for index, axis in zip(indices, axes, strict=True)]
        if from_right != sorted(from_right, reverse=True) or len(set(from_right)) != len(from_right):
            continue
        missing = [axis for axis in range(rank) if rank - axis not in from_right]
        if not all(_is_one(node.meta["val"].shape[axis]) for axis in missing):
            continue  # the indices also broadcast over other dimensions
        result = source
        with program.graph.inserting_before(node):
            for axis in missing:
                value = result.meta["val"].unsqueeze(axis)
                result = program.graph.call_function(aten.unsqueeze.default, (result, axis))
                result.meta = {**node.meta, "val": value}
        found = equal_inputs(program)
        found |= {
            str(expression(a)): str(expression(b))
            for a, b in zip(sizes, counted, strict=True)
            if expression(a) != expression(b)
        }
        program.graph_module.meta["paritas_equal"] = found
        replace(program, node, result)


def equal_inputs(program: ExportedProgram) -> dict[str, str]:
    """size -> size: dimensions of inputs that the normal form takes to be the same."""
    return dict(program.graph_module.meta.get("paritas_equal", {}))


def _may_equal(program: ExportedProgram, source: Node, size: int | torch.SymInt, count: int | torch.SymInt) -> bool:
    """Equal for all inputs, or free sizes of two inputs (a mask and its ids) that were equal in the example."""
    if expression(size) == expression(count):
        return True
    if not (isinstance(size, torch.SymInt) and isinstance(count, torch.SymInt)):
        return False
    free = {
        str(expression(s))
        for node in program.graph.nodes
        if node.op == "placeholder" and isinstance(node.meta.get("val"), torch.Tensor)
        for s in node.meta["val"].shape
        if isinstance(s, torch.SymInt)
    }
    known = {str(expression(size)), str(expression(count))} <= free
    return known and size.node.hint == count.node.hint


def _arange_axis(node: Node) -> int | None:
    """The axis along which `node` counts 0, 1, 2, .. while it is 1 wide in all others; None for all else."""
    name = name_of(node)
    if name == "aten.arange.default" or (name == "aten.arange.start" and node.args[0] == 0):
        return 0
    if name == "aten.unsqueeze.default":
        axis = _arange_axis(node.args[0])  # type: ignore[arg-type]
        if axis is None:
            return None
        at = node.args[1] % node.meta["val"].dim()
        return axis + 1 if at <= axis else axis
    return None


def _is_one(size: int | torch.SymInt) -> bool:
    return expression(size) == 1


def drop_true_conditions(program: ExportedProgram) -> None:
    """`True & x` is x: masks are built from a scalar True to which each condition is added."""
    for node in list(program.graph.nodes):
        if name_of(node) not in ("aten.__and__.Tensor", "aten.bitwise_and.Tensor", "aten.logical_and.default"):
            continue
        left, right = node.args
        for condition, other in ((left, right), (right, left)):
            if _is_scalar_true(condition) and same_dims(other.meta["val"].shape, node.meta["val"].shape):
                replace(program, node, other)
                break


def _is_scalar_true(node: object) -> bool:
    return (
        isinstance(node, Node)
        and name_of(node) in ("aten.new_ones.default", "aten.ones.default")
        and node.meta["val"].dim() == 0
        and node.meta["val"].dtype == torch.bool
    )


def joined_again_is_whole(program: ExportedProgram) -> None:
    """`cat(split(x))` is x: features of images are split by image, and joined again for the text.

    Also where every part is flattened in between, as x is then.
    """
    for node in list(program.graph.nodes):
        if name_of(node) != "aten.cat.default":
            continue
        parts: Any = node.args[0]
        dim: Any = node.args[1] if len(node.args) > 1 else 0
        flat = _leading_dims_merged(parts) if dim == 0 else None
        if flat is not None:
            parts = [part.args[0] for part in parts]
        split: Any = parts[0].args[0] if name_of(parts[0]) == "getitem" else None
        if split is None or name_of(split) not in _SPLITS:
            continue
        along = split.args[2] if len(split.args) > 2 else split.kwargs.get("dim", 0)
        rank = parts[0].meta["val"].dim()
        whole = len(parts) == len(split.meta["val"]) and all(
            name_of(part) == "getitem" and part.args == (split, number) for number, part in enumerate(parts)
        )
        if not whole or along % rank != dim % rank:
            continue
        if flat is None:
            replace(program, node, split.args[0])
        else:
            node.target, node.args, node.kwargs = aten.reshape.default, (split.args[0], flat), {}


def _leading_dims_merged(parts: Sequence[Node]) -> list[int] | None:
    """[-1, sizes behind] if each part is reshaped to that, from a tensor whose last sizes these are."""
    first: Any = parts[0].args[1] if name_of(parts[0]) == "aten.reshape.default" else []
    if not first or first[0] != -1 or not all(isinstance(size, int) for size in first):
        return None
    for part in parts:
        source: Any = part.args[0]
        if name_of(part) != "aten.reshape.default" or part.args[1] != first:
            return None
        if name_of(source) != "getitem" or source.meta["val"].dim() < len(first):
            return None
        behind = [expression(size) for size in source.meta["val"].shape]
        if behind[len(behind) - len(first) + 1 :] != list(first[1:]):
            return None
    return list(first)


_SPLITS = {"aten.split_with_sizes.default", "aten.split.Tensor", "aten.split.sizes"}


def drop_empty_parts(program: ExportedProgram) -> None:
    """`cat` of nothing and x is x; writing nothing into x leaves x. Engines have no tensors of 0 elements."""
    for node in list(program.graph.nodes):
        name = name_of(node)
        if name == "aten.cat.default":
            parts = [part for part in node.args[0] if not _is_nothing(part)]
            if len(parts) == 1 and same_dims(parts[0].meta["val"].shape, node.meta["val"].shape):
                replace(program, node, parts[0])
            elif len(parts) < len(node.args[0]) and len(parts) > 1:
                node.args = (parts, *node.args[1:])
        elif name in ("aten.slice_scatter.default", "aten.select_scatter.default") and _is_nothing(node.args[1]):
            replace(program, node, node.args[0])


def _is_nothing(node: Node) -> bool:
    return any(expression(size) == 0 for size in node.meta["val"].shape)


def views_are_reshapes(program: ExportedProgram) -> None:
    """Without clones, a tensor may be strided where `view` wants it contiguous; `reshape` takes both."""
    for node in program.graph.nodes:
        if name_of(node) in ("aten.view.default", "aten._unsafe_view.default"):
            node.target = aten.reshape.default


PASSES: tuple[Callable[[ExportedProgram], None], ...] = (
    drop_assertions,
    drop_aliases,
    stored_sizes_are_sizes,
    drop_identities,
    gathers_of_whole_dimensions_are_views,
    drop_true_conditions,
    views_are_reshapes,
    fold_constants,
    joined_again_is_whole,
    drop_empty_parts,
)


def name_of(node: Node) -> str:
    """ "aten.linear.default" for a call of an ATen overload, "" for all that is no call."""
    if node.op != "call_function":
        return ""
    target = node.target
    return str(target) if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", str(target))


def same_dims(a: torch.Size | tuple, b: torch.Size | tuple) -> bool:
    """Whether two shapes are equal for every size of the dynamic dimensions. Adds no guard."""
    return len(a) == len(b) and all(expression(x) == expression(y) for x, y in zip(a, b, strict=True))


def expression(size: int | torch.SymInt) -> Any:
    """A size as an int, or as the sympy expression behind it. A symbol that was found to be constant is an int."""
    if not isinstance(size, torch.SymInt):
        return size
    expr = size.node.expr
    return int(expr) if expr.is_Integer else expr


def dims_of(value: torch.Tensor) -> tuple[int | str, ...]:
    """A shape as `TensorSpec.dims` has it."""
    sizes = (expression(size) for size in value.shape)
    return tuple(size if isinstance(size, int) else str(size) for size in sizes)


def copied(graph: torch.fx.Graph) -> torch.fx.Graph:
    """The same nodes under the same names, each with a meta of its own."""
    made = torch.fx.Graph()
    copies: dict[Node, Node] = {}
    end = made.output(made.graph_copy(graph, copies))
    for old, new in [*copies.items(), (graph.output_node(), end)]:
        new.name, new.meta = old.name, dict(old.meta)
    return made


def replace(program: ExportedProgram, old: Node, new: Node) -> None:
    """Every user of `old`, the program's outputs included, takes `new`."""
    old.replace_all_uses_with(new)
    for spec in program.graph_signature.output_specs:
        if getattr(spec.arg, "name", None) == old.name:
            spec.arg.name = new.name
    program.graph.erase_node(old)
