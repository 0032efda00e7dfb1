# SPDX-License-Identifier: Apache-2.0
"""Which whole numbers a graph's nodes can hold, given what its inputs can and how large its sizes get.

What an index may be (`indices`) and whether a node fits into 32 bits (`largest_input`) are both asked of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import sympy
import torch
from torch.fx import Node

from paritas.capture.normalise import expression, name_of

#: The largest size of a dimension of which nothing is known.
LARGEST_SIZE = 2**31 - 1

INFINITE = 2**200

#: Operators of a tensor whose values are all there afterwards, in another shape or order.
MOVES = {
    "reshape", "view", "_unsafe_view", "permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "repeat", "clone",
    "alias", "contiguous", "flatten", "flip", "roll", "tile", "detach", "lift_fresh_copy", "movedim", "unflatten",
    "repeat_interleave", "rot90", "numpy_T", "swapaxes",
}  # fmt: skip

#: And of which some may be left out.
_PARTS = {
    "slice", "select", "index", "gather", "index_select", "take", "take_along_dim", "embedding", "narrow", "diagonal",
    "getitem", "split", "split_with_sizes", "chunk", "unbind", "unfold", "masked_select", "sort", "amax", "amin", "max",
    "min", "tensor_split", "as_strided", "tril_", "topk", "cummax", "cummin", "median", "mode",
}  # fmt: skip

_PLACES = {"argmax", "argmin", "argsort", "nonzero"}

CASTS = {"_to_copy", "to", "type_as"}


@dataclasses.dataclass(frozen=True)
class Interval:
    """low <= every value <= high. below: an expression of sizes that every value is smaller than, if one is known."""

    low: int
    high: int
    below: Any = None

    @property
    def single(self) -> bool:
        return self.low == self.high

    def cut(self, other: Interval) -> Interval:
        """What of it lies in `other`; all of `other` if nothing does."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return other if low > high else Interval(low, high, self.below)

    def within(self, low: int, high: int) -> bool:
        return low <= self.low and self.high <= high


def of_dtype(dtype: torch.dtype) -> Interval:
    if dtype == torch.bool:
        return Interval(0, 1)
    if dtype.is_floating_point or dtype.is_complex:
        return Interval(-INFINITE, INFINITE)
    about = torch.iinfo(dtype)
    return Interval(about.min, about.max)


def intervals(
    exported: torch.export.ExportedProgram,
    inputs: Mapping[str, tuple[int, int]] | None = None,
    sizes: Mapping[str, int] | None = None,
    watched: Collection[str] = (),
    left: list[Node] | None = None,
) -> dict[Node, Interval]:
    """Every node of whole numbers -> what it can hold.

    watched: operators of int64 whose results are seen to stay within 32 bits while they run; `left` gets the nodes of
    these that might leave them.

    inputs: the names of inputs of which more is known than their dtype -> (lowest, highest). sizes: dynamic
    dimension -> its largest size.
    """
    rules = _Forward(exported, inputs or {}, sizes or {})
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt):
            rules.found[node] = rules.size(value)
        elif isinstance(value, torch.Tensor) and not (value.dtype.is_floating_point or value.dtype.is_complex):
            full = of_dtype(value.dtype)
            found = rules.of(node)
            if value.dtype == torch.int64 and kind_of(node) in watched:
                narrow = of_dtype(torch.int32)
                if left is not None and (found is None or not found.within(narrow.low, narrow.high)):
                    left.append(node)
                found = narrow if found is None else found.cut(narrow)
            rules.found[node] = found if found is not None and found.within(full.low, full.high) else full
    return rules.found


def largest_input(
    exported: torch.export.ExportedProgram,
    inputs: Mapping[str, tuple[int, int]],
    sizes: Mapping[str, int],
    bits: int = 32,
    watched: Collection[str] = (),
) -> tuple[int, list[Node]]:
    """About the largest B for which no sum, difference or product leaves so many bits.

    inputs: what is known of some; every other one is in [-B - 1, B]. Operators that may leave them whatever B is are
    left out of account, and are the second result.
    """
    most = 2 ** (bits - 1) - 1
    free = {
        node.meta["paritas_input"]: inputs.get(node.meta["paritas_input"])
        for node in exported.graph.nodes
        if node.op == "placeholder" and "paritas_input" in node.meta
    }

    def beyond(largest: int) -> list[Node]:
        known = {name: range_ or (-largest - 1, largest) for name, range_ in free.items()}
        found = intervals(exported, known, sizes, watched)
        kinds = ("aten.add", "aten.sub", "aten.rsub", "aten.mul", "aten.neg", "aten.abs")
        return [
            node
            for node, interval in found.items()
            if name_of(node).startswith(kinds) and is_whole(node) and not interval.within(-most - 1, most)
        ]

    if not beyond(most):
        return most, []
    always = beyond(1)
    known = set(always)
    low, high = 1, most
    for middle in (most // 2, most // 4):
        if set(beyond(middle)) - known:
            high = middle
        else:
            low = middle
            break
    while high - low > max(low // 16, 1) and low < most // 4:
        middle = math.isqrt(low * high) if high > 4 * low else (low + high) // 2
        if set(beyond(middle)) - known:
            high = middle
        else:
            low = middle
    return low, always


def is_whole(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and not (value.dtype.is_floating_point or value.dtype.is_complex)


def kind_of(node: Node) -> str:
    """The operator's name without its library and overload."""
    name = name_of(node)
    return name.split(".")[1] if name.startswith("aten.") else name


class _Forward:
    def __init__(
        self, exported: torch.export.ExportedProgram, inputs: Mapping[str, tuple[int, int]], sizes: Mapping[str, int]
    ) -> None:
        self.exported, self.inputs, self.sizes = exported, inputs, sizes
        self.found: dict[Node, Interval] = {}

    def size(self, value: Any) -> Interval:
        """Of a size: from 0 to what its symbols allow."""
        known = expression(value)
        if isinstance(known, int):
            return Interval(known, known)
        most = {symbol: self.sizes.get(str(symbol), LARGEST_SIZE) for symbol in known.free_symbols}
        least = dict.fromkeys(known.free_symbols, 0)
        try:  # sizes only grow with their symbols, but where one is subtracted or divided by
            ends = [int(known.xreplace({s: sympy.Integer(v) for s, v in end.items()})) for end in (least, most)]
            rising = known + 1
        # sympy's powers of large numbers fail in ways of their own
        except (TypeError, ValueError, AttributeError, ArithmeticError):
            return Interval(0, LARGEST_SIZE**2)
        if any(term.is_number and term < 0 for term in known.as_coefficients_dict().values()):
            return Interval(min(*ends, 0), max(*ends, LARGEST_SIZE))
        return Interval(min(ends), max(ends), rising)

    def value(self, argument: Any) -> Interval | None:
        """Of an operand: a node's or a number's."""
        if isinstance(argument, Node):
            return self.found.get(argument)
        if isinstance(argument, (bool, int)):
            return Interval(int(argument), int(argument))
        return None

    def of(self, node: Node) -> Interval | None:
        if node.op == "placeholder":
            return self.placeholder(node)
        kind = kind_of(node)
        if kind == "getitem":
            return self.item(node)
        rule = _RULES.get(kind)
        if rule is not None:
            return rule(self, node)
        if kind in MOVES or kind in _PARTS:
            return self.value(node.args[0])
        return None

    def placeholder(self, node: Node) -> Interval | None:
        if "paritas_input" in node.meta:
            known = self.inputs.get(node.meta["paritas_input"])
            return Interval(*known) if known is not None else None
        from paritas.capture.forward_names import weight

        tensor = weight(self.exported, node)
        if not isinstance(tensor, torch.Tensor) or tensor.is_meta or not tensor.numel():
            return None
        return Interval(int(tensor.min()), int(tensor.max()))

    def item(self, node: Node) -> Interval | None:
        source: Any = node.args[0]
        kind = name_of(source).split(".")[1] if name_of(source).startswith("aten.") else ""
        if kind in ("topk", "sort", "max", "min", "cummax", "cummin", "median", "mode", "kthvalue"):
            if node.args[1] == 1:
                return self.place(source)
            return self.value(source.args[0])
        if kind in _PARTS:
            return self.value(source.args[0])
        return None

    def place(self, node: Node) -> Interval | None:
        """An index into the first operand, along the dimension that the operator works on, or anywhere."""
        shape = node.args[0].meta["val"].shape  # type: ignore[union-attr]
        sizes = [self.size(size) for size in shape]
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        if dim is None and name_of(node).startswith("aten.argsort"):
            dim = -1
        if name_of(node).startswith("aten.nonzero") or not isinstance(dim, int) or not shape:
            whole = math.prod(size.high for size in sizes)
            return Interval(0, max(whole - 1, 0))
        if name_of(node).startswith(("aten.topk", "aten.kthvalue")):
            dim = node.args[2] if len(node.args) > 2 else -1
        return Interval(0, max(sizes[dim].high - 1, 0), expression(shape[dim]))  # type: ignore[index]


def _corners(a: Interval, b: Interval, compute: Callable[[int, int], int]) -> Interval:
    ends = [compute(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    return Interval(min(ends), max(ends))


def _binary(compute: Callable[[int, int], int]) -> Callable[[_Forward, Node], Interval | None]:
    def rule(rules: _Forward, node: Node) -> Interval | None:
        a, b = rules.value(node.args[0]), rules.value(node.args[1])
        return None if a is None or b is None else _corners(a, b, compute)

    return rule


def _sum(sign: int, turned: bool = False) -> Callable[[_Forward, Node], Interval | None]:
    def rule(rules: _Forward, node: Node) -> Interval | None:
        a, b = (rules.value(node.args[i]) for i in ((1, 0) if turned else (0, 1)))
        alpha = node.kwargs.get("alpha", node.args[2] if len(node.args) > 2 else 1)
        if a is None or b is None or type(alpha) is not int:
            return None
        if turned:  # alpha multiplies the first one
            return _corners(a, b, lambda x, y: x - alpha * y)
        found = _corners(a, b, lambda x, y: x + sign * alpha * y)
        below = None
        if sign == 1 and alpha == 1:
            for one, other in ((a, b), (b, a)):
                if one.below is not None and other.single:
                    below = one.below + other.low
                elif one.below is not None and other.below is not None:
                    below = one.below + other.below - 1
        return dataclasses.replace(found, below=below)

    return rule


def _divided(rules: _Forward, node: Node) -> Interval | None:
    a, b = rules.value(node.args[0]), rules.value(node.args[1])
    mode = node.kwargs.get("rounding_mode", "floor")
    if a is None or b is None or not b.single or b.low == 0 or mode not in ("floor", "trunc"):
        return None
    if mode == "floor":
        return _corners(a, b, lambda x, y: x // y)
    return _corners(a, b, lambda x, y: abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1))


def _remainder(rules: _Forward, node: Node) -> Interval | None:
    b = rules.value(node.args[1])
    if b is None:
        return None
    if b.low > 0:
        return Interval(0, b.high - 1)
    return Interval(b.low + 1, 0) if b.high < 0 else Interval(min(b.low + 1, 0), max(b.high - 1, 0))


def _clamped(rules: _Forward, node: Node) -> Interval | None:
    found = rules.value(node.args[0])
    kind = name_of(node).split(".")[1]
    ends = [node.args[i] if len(node.args) > i else None for i in (1, 2)]
    low, high = {"clamp_min": (ends[0], None), "clamp_max": (None, ends[0])}.get(kind, (ends[0], ends[1]))
    low = node.kwargs.get("min", low)
    high = node.kwargs.get("max", high)
    if found is None:
        return None
    for end, bound in ((low, max), (high, min)):
        if end is None:
            continue
        if isinstance(end, float) and math.isfinite(end):
            end = int(end)
        known = rules.value(end)
        if known is None:
            return None
        found = Interval(
            bound(found.low, known.low), bound(found.high, known.high), found.below if bound is min else None
        )
    return found


def _union(place: int) -> Callable[[_Forward, Node], Interval | None]:
    def rule(rules: _Forward, node: Node) -> Interval | None:
        parts = node.args[place] if place >= 0 else node.args[1:3]
        known = [rules.value(part) for part in parts]  # type: ignore[union-attr]
        if not known or any(part is None for part in known):
            return None
        belows = {part.below for part in known if part is not None}
        return Interval(
            min(part.low for part in known if part is not None),
            max(part.high for part in known if part is not None),
            belows.pop() if len(belows) == 1 else None,
        )

    return rule


def _cast(rules: _Forward, node: Node) -> Interval | None:
    source: Any = node.args[0]
    return rules.value(source) if is_whole(source) else None


def _counted(rules: _Forward, node: Node) -> Interval | None:
    """aten.arange: from its first number, in steps of one number, to before its last."""
    name = name_of(node)
    numbers = list(node.args)
    if name == "aten.arange.default":
        numbers = [0, *numbers[:1]]
    step = numbers[2] if len(numbers) > 2 else 1
    begin, end = rules.value(numbers[0]), rules.value(numbers[1])
    if begin is None or end is None or type(step) is not int or step == 0:
        return None
    if step < 0:
        return Interval(min(end.low + 1, begin.high), begin.high)
    stop = numbers[1]
    below = expression(stop.meta["val"]) if isinstance(stop, Node) else stop
    return Interval(min(begin.low, end.high - 1), max(end.high - 1, begin.low), below)


def _filled(place: int) -> Callable[[_Forward, Node], Interval | None]:
    return lambda rules, node: rules.value(node.args[place]) if len(node.args) > place else None


def _added_up(rules: _Forward, node: Node) -> Interval | None:
    source: Any = node.args[0]
    found = rules.value(source)
    if found is None:
        return None
    sizes = [rules.size(size).high for size in source.meta["val"].shape]
    dims = node.args[1] if len(node.args) > 1 else None
    if name_of(node) == "aten.cumsum.default":
        dims = [dims]
    chosen = sizes if not dims else [sizes[dim] for dim in dims if isinstance(dim, int) and sizes]  # type: ignore[union-attr]
    count = min(math.prod(chosen), LARGEST_SIZE)
    return Interval(min(found.low * count, found.low), max(found.high * count, found.high))


def _padded(rules: _Forward, node: Node) -> Interval | None:
    found, filled = rules.value(node.args[0]), rules.value(node.args[2] if len(node.args) > 2 else 0)
    if found is None or filled is None:
        return None
    return Interval(min(found.low, filled.low), max(found.high, filled.high))


def _masked(rules: _Forward, node: Node) -> Interval | None:
    """x & n: what n has no bits for is gone."""
    a, b = rules.value(node.args[0]), rules.value(node.args[1])
    least = [part.high for part in (a, b) if part is not None and part.low >= 0]
    return Interval(0, min(least)) if least else None


def _written(place: int) -> Callable[[_Forward, Node], Interval | None]:
    """What is there before, and what is written into it; sums of both are not known."""

    def rule(rules: _Forward, node: Node) -> Interval | None:
        if node.kwargs.get("reduce") or node.kwargs.get("accumulate") or any(a is True for a in node.args[3:4]):
            return None
        written = node.args[place] if len(node.args) > place else node.kwargs.get("value")
        return _either(rules.value(node.args[0]), rules.value(written))

    return rule


_RULES: dict[str, Callable[[_Forward, Node], Interval | None]] = {
    "add": _sum(1), "sub": _sum(-1), "rsub": _sum(-1, turned=True), "mul": _binary(lambda x, y: x * y),
    "floor_divide": _divided, "div": _divided, "remainder": _remainder,
    "maximum": _binary(max), "minimum": _binary(min), "clamp": _clamped, "clamp_min": _clamped, "clamp_max": _clamped,
    "where": _union(-1), "cat": _union(0), "stack": _union(0), "arange": _counted, "_to_copy": _cast, "to": _cast,
    "type_as": _cast, "full": _filled(1), "full_like": _filled(1), "scalar_tensor": _filled(0), "new_full": _filled(2),
    "zeros": lambda rules, node: Interval(0, 0), "zeros_like": lambda rules, node: Interval(0, 0),
    "new_zeros": lambda rules, node: Interval(0, 0), "ones": lambda rules, node: Interval(1, 1),
    "ones_like": lambda rules, node: Interval(1, 1), "new_ones": lambda rules, node: Interval(1, 1),
    "sum": _added_up, "cumsum": _added_up, "constant_pad_nd": _padded, "bitwise_and": _masked, "__and__": _masked,
    "relu": lambda rules, node: _positive(rules.value(node.args[0])),
    "neg": lambda rules, node: _turned(rules.value(node.args[0])),
    "abs": lambda rules, node: _size_of(rules.value(node.args[0])),
    "sign": lambda rules, node: Interval(-1, 1),
    "scatter": _written(3), "index_copy": _written(3), "index_fill": _written(3), "masked_scatter": _written(2),
    "index_put": _written(2), "_unsafe_index_put": _written(2),
    "masked_fill": lambda rules, node: _either(rules.value(node.args[0]), rules.value(node.args[2])),
    **{kind: lambda rules, node: rules.place(node) for kind in _PLACES},
}  # fmt: skip


def _positive(found: Interval | None) -> Interval | None:
    return None if found is None else Interval(max(found.low, 0), max(found.high, 0), found.below)


def _turned(found: Interval | None) -> Interval | None:
    return None if found is None else Interval(-found.high, -found.low)


def _size_of(found: Interval | None) -> Interval | None:
    if found is None:
        return None
    ends = abs(found.low), abs(found.high)
    return Interval(0 if found.low <= 0 <= found.high else min(ends), max(ends))


def _either(a: Interval | None, b: Interval | None) -> Interval | None:
    return None if a is None or b is None else Interval(min(a.low, b.low), max(a.high, b.high))
