# SPDX-License-Identifier: Apache-2.0
"""What the inputs may hold for every index to be in its table and for no whole number to be divided by zero.

PyTorch raises for an index outside its table, for a division of whole numbers by zero and for a matrix that has no
inverse; engines answer. What an input may hold for the first two is found by going back from the table through
operators that can be undone, and is checked at the door. Where the way back ends before an input, and for matrices, a
note names the operator, so that it is never silent.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Node

from paritas.capture.normalise import expression, name_of
from paritas.capture.ranges import CASTS, INFINITE, MOVES, Interval, intervals, is_whole

#: Operator -> the place of the index among its arguments, the table's dimension (-1: an argument says so; None: its
#: elements in all), and whether negative indices count from the end.
_LOOKUPS: dict[str, tuple[int, str, bool]] = {
    "aten.embedding.default": (1, "first", False),
    "aten.index_select.default": (2, "dim", False),
    "aten.gather.default": (2, "dim", False),
    "aten.scatter.src": (2, "dim", False),
    "aten.scatter.value": (2, "dim", False),
    "aten.scatter_add.default": (2, "dim", False),
    "aten.scatter_reduce.two": (2, "dim", False),
    "aten.scatter.reduce": (2, "dim", False),
    "aten.scatter.value_reduce": (2, "dim", False),
    "aten.index_add.default": (2, "dim", False),
    "aten.index_copy.default": (2, "dim", False),
    "aten.index_fill.int_Scalar": (2, "dim", True),
    "aten.take.default": (1, "all", True),
    "aten.take_along_dim.default": (1, "given", False),
}

_DIVISIONS = {
    "aten.floor_divide.default", "aten.remainder.Tensor", "aten.fmod.Tensor", "aten.div.Tensor_mode",
    "aten.remainder.Scalar_Tensor",
}  # fmt: skip

_INVERSES = {
    "aten.inverse.default", "aten.linalg_inv.default", "aten.linalg_solve.default", "aten.linalg_tensorinv.default",
    "aten.linalg_tensorsolve.default",
}  # fmt: skip


@dataclasses.dataclass
class Bounds:
    """What an input may hold."""

    low: int = -INFINITE
    high: int = INFINITE
    never: set[int] = dataclasses.field(default_factory=set)
    ignored: int | None = None  # of a loss's targets: what stands for none, outside of the other two

    @property
    def known(self) -> bool:
        return self.low > -INFINITE or self.high < INFINITE


@dataclasses.dataclass(frozen=True)
class Unchecked:
    """An operator that PyTorch refuses some values for, of which the door cannot tell."""

    node: Node
    what: str


def door(
    exported: torch.export.ExportedProgram, sizes: Mapping[str, int], orders: Mapping[str, str] | None = None
) -> tuple[dict[str, Bounds], list[Unchecked]]:
    """What every input may hold, by its placeholder's name, and the operators of which the door cannot tell.

    orders: placeholder -> the size below which it holds every number once.
    """
    known = intervals(exported, sizes=sizes)
    back = _Backward(known)
    for node in exported.graph.nodes:
        for index, size, negative in _lookups(node):
            least = -1 if negative else 0
            here = known.get(index)
            most = expression(size) if size is not None else None
            if here is None or most is None:
                continue
            if here.low >= 0 and here.below is not None and here.below == most:
                continue
            if (orders or {}).get(index.name) == str(most):
                continue
            if not isinstance(most, int):
                back.unchecked.append(Unchecked(node, "an index that is out of range"))
                continue
            if not back.demand(index, least * most, most - 1):
                back.unchecked.append(Unchecked(node, "an index that is out of range"))
        if name_of(node) in _INVERSES:
            back.unchecked.append(Unchecked(node, "a matrix without an inverse"))
        if name_of(node) in _DIVISIONS and is_whole(node):
            divisor = node.args[1]
            if isinstance(divisor, Node) and not back.never(divisor, 0):
                back.unchecked.append(Unchecked(node, "a division by zero"))
    for node in exported.graph.nodes:
        for target, bounds in _targets(node):
            if target.name not in back.bounds:  # or a table says it, which takes none that is ignored
                back.bounds[target.name] = bounds
    return back.bounds, back.unchecked


#: Losses of classes, by the place of `ignore_index` among their arguments, which is -100 by default.
_OF_CLASSES = {
    "aten.cross_entropy_loss.default": 4, "aten.nll_loss.default": 4, "aten.nll_loss_nd.default": 4,
    "aten.nll_loss2d.default": 4,
}  # fmt: skip


def _targets(node: Node) -> list[tuple[Node, Bounds]]:
    """The input that a loss takes its targets of, and what it may hold; nothing where that is no plain input."""
    place = _OF_CLASSES.get(name_of(node))
    if place is None or not is_whole(node.args[1]):  # type: ignore[arg-type]
        return []
    scores: Any = node.args[0]
    shape = scores.meta["val"].shape
    classes = shape[1] if len(shape) > 1 else shape[0]
    ignored = node.args[place] if len(node.args) > place else node.kwargs.get("ignore_index", -100)
    if not isinstance(classes, int) or not isinstance(ignored, int):
        return []
    target: Any = node.args[1]
    while target.op == "call_function":
        kind = name_of(target).removeprefix("aten.").partition(".")[0]
        filled = target.args[2] if kind == "constant_pad_nd" and len(target.args) > 2 else ignored
        if filled != ignored or kind not in MOVES | CASTS | {"slice", "constant_pad_nd"}:
            return []
        target = target.args[0]
    if "paritas_input" not in target.meta:
        return []
    return [(target, Bounds(0, classes - 1, ignored=ignored))]


def _lookups(node: Node) -> list[tuple[Node, Any, bool]]:
    """(index, size of what it chooses from, whether negative ones count from the end) of an operator's indices."""
    name = name_of(node)
    if name in ("aten.index.Tensor", "aten.index_put.default", "aten._unsafe_index.Tensor"):
        shape, axis, found = node.args[0].meta["val"].shape, 0, []  # type: ignore[union-attr]
        for index in node.args[1]:  # type: ignore[union-attr]
            if not isinstance(index, Node):
                axis += 1
            elif index.meta["val"].dtype in (torch.bool, torch.uint8):
                axis += index.meta["val"].dim()
            else:
                found.append((index, shape[axis], True))
                axis += 1
        return found
    if name == "aten.one_hot.default":
        classes = node.args[1] if len(node.args) > 1 else -1
        return [(node.args[0], classes, False)] if isinstance(classes, int) and classes > 0 else []  # type: ignore[list-item]
    if name not in _LOOKUPS:
        return []
    place, along, negative = _LOOKUPS[name]
    index, table = node.args[place], node.args[0]
    if not isinstance(index, Node) or not isinstance(table, Node):
        return []
    shape = table.meta["val"].shape
    if not shape:
        return [(index, 1, negative)]
    if along == "all":
        return [(index, math.prod(shape), negative)]
    if along == "first":
        return [(index, shape[0], negative)]
    dim = node.args[1] if along == "dim" else (node.args[2] if len(node.args) > 2 else None)
    return [(index, shape[dim], negative)] if isinstance(dim, int) else []


class _Backward:
    """What has to hold of the inputs for a node to hold what is demanded of it."""

    def __init__(self, known: Mapping[Node, Interval]) -> None:
        self.known = known
        self.bounds: dict[str, Bounds] = {}
        self.unchecked: list[Unchecked] = []

    def demand(self, node: Node, low: int, high: int) -> bool:
        """Note what inputs may hold for every value of `node` to be in [low, high]; False where that is unknown."""
        here = self.known.get(node)
        if here is not None and here.within(low, high):
            return True
        if node.op == "placeholder" and "paritas_input" in node.meta:
            bounds = self.bounds.setdefault(node.name, Bounds())
            bounds.low, bounds.high = max(bounds.low, low), min(bounds.high, high)
            return True
        if not is_whole(node):
            return False
        step = self.undone(node, low, high)
        if step is not None:
            return self.demand(*step)
        if name_of(node) in ("aten.cat.default", "aten.stack.default"):
            told = True
            for part in node.args[0]:  # type: ignore[union-attr]
                told &= self.demand(part, low, high)  # type: ignore[arg-type]
            return told
        return False

    def undone(self, node: Node, low: int, high: int) -> tuple[Node, int, int] | None:
        """The operand and what it has to hold, where that is as much as is demanded of the node."""
        kind = name_of(node).split(".")[1] if name_of(node).startswith("aten.") else ""
        first: Any = node.args[0] if node.args else None
        if kind in MOVES | CASTS and isinstance(first, Node) and is_whole(first):
            return first, low, high
        if kind == "neg":
            return first, -high, -low
        if kind in ("clamp_min", "relu") or (kind == "clamp" and len(node.args) == 2):
            return self.one_sided(node, low, high, 0 if kind == "relu" else node.args[1], True)
        if kind == "clamp_max":
            return self.one_sided(node, low, high, node.args[1], False)
        if kind not in ("add", "sub", "rsub", "mul", "floor_divide", "div") or len(node.args) < 2:
            return None
        other: Any = node.args[1]
        swapped = isinstance(other, Node) and self.constant(first) is not None
        moving, still = (other, first) if swapped else (first, other)
        number = self.constant(still)
        alpha = node.kwargs.get("alpha", node.args[2] if len(node.args) > 2 else 1)
        if number is None or not isinstance(moving, Node) or alpha != 1:
            return None
        if kind == "add":
            return moving, low - number, high - number
        if (kind == "sub" and swapped) or (kind == "rsub" and not swapped):
            return moving, number - high, number - low
        if kind in ("sub", "rsub"):
            return moving, low + number, high + number
        if number == 0:
            return None
        if kind == "mul":
            ends = (low, high) if number > 0 else (-high, -low)
            return moving, -(-ends[0] // abs(number)), ends[1] // abs(number)
        if number > 0 and not swapped and (kind == "floor_divide" or node.kwargs.get("rounding_mode") == "floor"):
            return moving, low * number, high * number + number - 1
        return None

    def one_sided(self, node: Node, low: int, high: int, end: Any, least: bool) -> tuple[Node, int, int] | None:
        """Of max(x, end) only the high end tells of x, if `end` itself is high enough; of min(x, end) the low one."""
        if type(end) is not int or not low <= end <= high:
            return None
        source: Any = node.args[0]
        return (source, -INFINITE, high) if least else (source, low, INFINITE)

    def constant(self, argument: Any) -> int | None:
        if type(argument) is int:
            return argument
        known = self.known.get(argument) if isinstance(argument, Node) else None
        return known.low if known is not None and known.single else None

    def never(self, node: Node, value: int) -> bool:
        """Note what inputs may not hold for no value of `node` to be this one; False where that is unknown."""
        here = self.known.get(node)
        if here is not None and not here.low <= value <= here.high:
            return True
        if node.op == "placeholder" and "paritas_input" in node.meta:
            self.bounds.setdefault(node.name, Bounds()).never.add(value)
            return True
        if not is_whole(node):
            return False
        step = self.undone(node, value, value)
        kind = name_of(node).split(".")[1] if name_of(node).startswith("aten.") else ""
        if step is None or step[1] > step[2]:
            return step is not None
        return step[1] == step[2] and kind not in ("clamp_min", "clamp_max", "clamp") and self.never(step[0], step[1])
