# SPDX-License-Identifier: Apache-2.0
"""Everything that a model's code asked about free sizes while it was captured, and what it was told.

torch.export keeps such answers as guards, but takes every size for 2 or more, decides from that without a trace, and
adds guards of its own about memory layouts, which no value depends on. So the questions are noted where they are asked.
"""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import functools
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from types import CodeType, FrameType
from typing import Any

import sympy
import torch
from torch.fx.experimental.symbolic_shapes import ShapeEnv, uninteresting_files
from torch.utils import _pytree as pytree
from torch.utils._sympy import functions as torch_sympy
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from paritas.capture.messages import is_message
from paritas.capture.normalise import expression, name_of
from paritas.capture.origin import is_glue, origin, running
from paritas.formulas import can_be_read
from paritas.guards import MOST_GUARDS
from paritas.program import Guard, place_of

_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep

#: Where sizes themselves compute: whoever called them has asked.
_SYMBOLS = tuple(
    _TORCH + path.replace("/", os.sep)
    for path in ("fx/experimental/", "utils/_sympy/", "__init__.py", "_C/", "utils/_stats.py")
)
#: Python of torch that makes operators, as a model's own code does.
_PYTHON = tuple(
    _TORCH + path.replace("/", os.sep)
    for path in ("nn/", "functional.py", "_tensor.py", "distributions/", "_dynamo/", "signal/")
)
#: Functions of torch that decide about strides, which no value depends on, or in which of equal ways a view is made.
_LAYOUT = re.compile(
    r"(_?is_(contiguous|channels_last|non_overlapping)|check_contiguous_sizes_strides|_check_strides_helper"
    r"|are_strides_like_|compute_elementwise_output_|suggest_memory_format|make_(contiguous|channels_last)"
    r"|_compute_stride$|_reshape_view_helper_core_alg"
    r"|_collapse_view_helper|_get_output_tensor_from_cache_entry)"
)

#: Where Python hands over to an operator that is written in C++.
_CALL_OF_OPERATOR = torch._ops.OpOverload.__call__.__code__
_RESHAPING = {"reshape", "view", "flatten", "unflatten", "contiguous", "clone", "_reshape_alias", "_unsafe_view"}


#: Whose texts of sizes nobody computes with.
_PRINTS_SYMBOLS = (_TORCH, os.path.dirname(sympy.__file__), os.path.dirname(logging.__file__), __file__)


@dataclasses.dataclass
class _Asked:
    by_program: bool
    where: str


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Note every question about a size, by the environment of symbols that it is asked in."""
    original = ShapeEnv.evaluate_sym_node
    # torch looks at the line that asks, and takes an `assert` for a check: that line is the model's, not ours.
    passed_over = uninteresting_files()

    def evaluate_sym_node(self: ShapeEnv, sym_node: Any, *args: Any, **kwargs: Any) -> Any:
        question = sym_node.expr
        if question.is_number or question in (sympy.true, sympy.false):
            return original(self, sym_node, *args, **kwargs)
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and _kind(frame.f_code) == "symbols":
            frame = frame.f_back
        if _repeats(frame):
            return original(self, sym_node, *args, **kwargs)
        by_program = frame is not None and _kind(frame.f_code) == "program"
        if frame is not None and frame.f_code.co_name == "check_contiguous_sizes_strides" and _is_of_one(question):
            return False  # A yes would fix a free size for the sake of strides: of L - 2, L would become 3.
        before = len(self.guards)
        answer = original(self, sym_node, *args, **kwargs)
        about_layout = _is_about_layout(frame) or _is_about_strides(question, frame)
        if by_program or (len(self.guards) > before and not about_layout):
            asked: dict[Any, _Asked] = vars(self).setdefault("_paritas_asked", {})
            known = asked.get((question, answer))
            if known is None or (by_program and not known.by_program):
                asked[question, answer] = _Asked(by_program, _line(frame))
        return answer

    ShapeEnv.evaluate_sym_node = evaluate_sym_node  # type: ignore[method-assign]
    passed_over.add(__file__)
    try:
        with _as_numbers():
            yield
    finally:
        ShapeEnv.evaluate_sym_node = original  # type: ignore[method-assign]
        passed_over.discard(__file__)


@contextlib.contextmanager
def _as_numbers() -> Iterator[None]:
    """What torch's sizes do otherwise than numbers, without a question: they print as "s0", and round to no tens."""
    before = {name: vars(torch.SymInt)[name] for name in ("__repr__", "__round__")}

    def text(self: torch.SymInt) -> str:
        # Torch's own code prints symbols. A model's code would go on with a text of the wrong length.
        frame = sys._getframe(1)
        file = frame.f_code.co_filename
        shown = file.startswith(_PRINTS_SYMBOLS) or is_glue(file) or is_message(frame)
        if shown or not self.node.has_hint():  # a size that values decide has no number yet
            return str(before["__repr__"](self))
        return repr(int(self))

    def rounded(self: torch.SymInt, digits: Any = None) -> Any:
        if digits is None or digits >= 0:
            return self
        unit = 10**-digits
        tens, rest = self // unit, self % unit
        if rest * 2 == unit:
            return (tens + tens % 2) * unit  # ties go to the even one
        return (tens + 1 if rest * 2 > unit else tens) * unit

    def printed(*values: Any, **options: Any) -> None:
        show(*map(str, values), **options)  # from here, so that what is only shown asks nothing

    show = builtins.print
    builtins.print = printed
    torch.SymInt.__repr__, torch.SymInt.__round__ = text, rounded  # type: ignore[method-assign]
    try:
        yield
    finally:
        builtins.print = show
        for name, method in before.items():
            setattr(torch.SymInt, name, method)


_KINDS: dict[CodeType, str] = {}


def _kind(code: CodeType) -> str:
    """ "symbols", "program" or "torch": whose code it is."""
    if code not in _KINDS:
        file = code.co_filename
        _KINDS[code] = (
            "symbols"
            if file.startswith(_SYMBOLS) or file in (functools.__file__, contextlib.__file__)
            else "program"
            if not file.startswith(_TORCH) or file.startswith(_PYTHON)
            else "torch"
        )
    return _KINDS[code]


def _repeats(frame: FrameType | None) -> bool:
    """Whether torch asks again what it was told: a graph that is traced once more has its guards as a function, with
    ranges in it that only follow from them, and from sizes of 2 or more."""
    if frame is None or frame.f_code.co_filename != "<string>" or frame.f_back is None:
        return False
    return frame.f_back.f_code.co_filename.startswith(_TORCH) and frame.f_code.co_varnames[:1] == ("args",)


def _is_about_layout(frame: FrameType | None) -> bool:
    for _ in range(6):
        if frame is None or _kind(frame.f_code) == "program":
            return False
        if _LAYOUT.match(frame.f_code.co_name):
            return True
        frame = frame.f_back
    return False


def _is_of_one(question: Any) -> bool:
    return isinstance(question, sympy.Eq) and sympy.S.One in question.args


def _is_about_strides(question: Any, frame: FrameType | None) -> bool:
    """Whether an operator in C++ asks about the strides of its tensors, in which no frame of Python says so."""
    if frame is None or frame.f_code is not _CALL_OF_OPERATOR:
        return False
    leaves = pytree.tree_leaves((frame.f_locals.get("args"), frame.f_locals.get("kwargs")))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if frame.f_locals["self"]._opname in _RESHAPING and tensors:
        # Whether the elements fill the new shape is asked of their number; all else is asked to make a view, or none.
        count: Any = tensors[0].numel()
        counted = isinstance(count, torch.SymInt) and isinstance(question, sympy.Eq)
        filled = counted and count.node.expr in question.args and sympy.S.Zero not in question.args
        return not (filled or question.has(torch_sympy.Mod))
    # The strides of a fresh tensor are products of `max(1, size)`, and the call itself has no such term.
    largest = {term for term in question.atoms(torch_sympy.Max) if sympy.S.One in term.args}
    sizes = [size for leaf in leaves for size in (leaf.shape if isinstance(leaf, torch.Tensor) else [leaf])]
    known = [size.node.expr.atoms(torch_sympy.Max) for size in sizes if isinstance(size, torch.SymInt)]
    return bool(largest) and largest.isdisjoint(set().union(*known))


def _line(frame: FrameType | None) -> str:
    """ "model.py:12  the source line" of the innermost frame outside torch, and where the model called it."""
    if frame is not None and os.sep + "_dynamo" + os.sep in frame.f_code.co_filename:
        stack = torch._guards.TracingContext.extract_stack()
        return f"{os.path.basename(stack[-1].filename)}:{stack[-1].lineno}  {stack[-1].line}" if stack else ""
    return place_of(running(frame))


# --- from questions to guards ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Fact:
    """A fact about sizes that the graph depends on, as sympy has it. assumed: known of every size from 2 on."""

    fact: Any
    where: str
    assumed: bool = False


def found(exported: torch.export.ExportedProgram) -> list[Fact]:
    """What has to hold of the inputs' sizes, so that the graph computes what the model would.

    Has to be called before the graph is in normal form.
    """
    sizes = [size for size in _input_sizes(exported) if isinstance(size, torch.SymInt)]
    if not sizes:
        return []
    environment = sizes[0].node.shape_env
    free = set().union(*(size.node.expr.free_symbols for size in sizes))
    facts = _facts(environment, asked_in(environment), free)
    for found in _of_operators(exported, [known.fact for known in facts.values() if not known.assumed]):
        if found.fact.free_symbols <= free and not _is_denied(found.fact, facts):
            facts.setdefault(found.fact, found)
    return list(facts.values())


def _is_denied(fact: Any, facts: Mapping[Any, Fact]) -> bool:
    """Whether a size of 1 that `fact` excludes is excluded already."""
    ones = dict.fromkeys(fact.free_symbols, sympy.Integer(1))
    return any(not known.assumed and other.xreplace(ones) == sympy.false for other, known in facts.items())


def asked_in(environment: ShapeEnv) -> dict[Any, _Asked]:
    """The questions that have been noted so far, with their answers."""
    return dict(vars(environment).get("_paritas_asked", {}))


@dataclasses.dataclass(frozen=True)
class Before:
    """The questions that were noted in an environment so far, and the sizes that torch has replaced in it."""

    asked: Mapping[Any, Any]
    replaced: Set[Any]

    @classmethod
    def of(cls, environment: ShapeEnv) -> Before:
        return cls(asked_in(environment), set(environment.replacements))


def found_since(
    exported: torch.export.ExportedProgram, environment: ShapeEnv, before: Before, where: str
) -> list[Fact]:
    """As `found`, of what was asked after `before`, by operators that the line `where` calls.

    And of sizes that torch has replaced meanwhile, by a number or by one another, whoever asked.
    """
    sizes = [size for size in _input_sizes(exported) if isinstance(size, torch.SymInt)]
    free = set().union(*(size.node._expr.free_symbols for size in sizes))
    new = {key: asked for key, asked in asked_in(environment).items() if key not in before.asked}
    facts = [dataclasses.replace(found, where=where) for found in _facts(environment, new, free).values()]
    for symbol in sorted(free - before.replaced, key=str):
        if (value := environment.replace(symbol)) != symbol:
            facts.append(Fact(sympy.Eq(symbol, value), where))
    return facts


def _facts(environment: ShapeEnv, questions: Mapping[Any, _Asked], free: set[Any]) -> dict[Any, Fact]:
    facts: dict[Any, Fact] = {}
    for (question, answer), asked in questions.items():
        fact = _fact(environment.replace(question), answer)
        # Sizes that follow from values of an input are not known at the door.
        if fact in (sympy.true, sympy.false) or not fact.free_symbols <= free or fact in facts:
            continue
        assumed = _always(fact, 2)
        if _always(fact, 1) or (assumed and not asked.by_program):
            continue
        facts[fact] = Fact(fact, asked.where, assumed)
    return facts


def _fact(question: Any, answer: Any) -> Any:
    if answer is True or answer is sympy.true:
        return question
    if answer is False or answer is sympy.false:
        return sympy.Not(question)
    return sympy.Eq(question, answer)


def _always(fact: Any, least: int) -> bool:
    """Whether it holds of all sizes from `least` on, as far as intervals can tell."""
    try:
        ranges = {symbol: ValueRanges(sympy.Integer(least), int_oo) for symbol in fact.free_symbols}
        bounds = bound_sympy(fact, ranges)
        return bool(bounds.is_singleton() and bounds.lower is sympy.true)
    except Exception:  # noqa: BLE001 - what torch cannot bound is not known to hold
        return False


def _input_sizes(exported: torch.export.ExportedProgram) -> list[Any]:
    users = {spec.arg.name for spec in exported.graph_signature.input_specs if spec.kind.name == "USER_INPUT"}
    return [
        size
        for node in exported.graph.nodes
        if node.op == "placeholder" and node.name in users and isinstance(node.meta.get("val"), torch.Tensor)
        for size in node.meta["val"].shape
    ]


def _of_operators(exported: torch.export.ExportedProgram, known: Sequence[Any]) -> Iterator[Fact]:
    """A dimension that `squeeze` left alone was not 1 wide: another size there is another shape.

    And of `x[-2:]` there are two rows, as torch.export has it, unless `x` has only one.
    """
    for node in exported.graph.nodes:
        name = name_of(node)
        if name == "aten.slice.Tensor":
            yield from _of_slice(node, known)
        if not name.startswith(("aten.squeeze.", "aten.squeeze_copy.")):
            continue
        shape = node.args[0].meta["val"].shape
        named = node.args[1] if len(node.args) > 1 else range(len(shape))
        for axis in [named] if isinstance(named, int) else named:
            size = expression(shape[axis]) if shape else 1
            if not isinstance(size, int):
                yield Fact(sympy.Ne(size, 1), str(origin(node)))


def _of_slice(node: torch.fx.Node, known: Sequence[Any]) -> Iterator[Fact]:
    source: Any = node.args[0]
    arguments: list[Any] = [*node.args[1:], *(0, None, None, 1)[len(node.args) - 1 :]]
    axis, *ends = arguments
    whole, part = (expression(value.meta["val"].shape[axis]) for value in (source, node))
    ends = [expression(end.meta["val"]) if isinstance(end, torch.fx.Node) else end for end in ends]
    symbols: set[Any] = getattr(whole, "free_symbols", set())
    own = symbols.union(*(getattr(size, "free_symbols", set()) for size in (part, *ends)))
    for symbol in symbols:
        hints = source.meta["val"].shape[axis].node.shape_env.backed_var_to_val
        ones = [{**hints, symbol: sympy.Integer(1)}, {**hints, **dict.fromkeys(own, sympy.Integer(1))}]
        taken = (sizes for sizes in ones if not any(_denies(fact, sizes, own) for fact in known))
        numbers = next(taken, None)
        if numbers is None:
            continue
        try:
            asked = slice(*(None if end is None else _at(end, numbers) for end in ends))
            if _at(part, numbers) != len(range(*asked.indices(_at(whole, numbers)))):
                yield Fact(sympy.Ne(symbol, 1), str(origin(node)))
        except (TypeError, ValueError, ZeroDivisionError):
            continue  # of what values decide


def _denies(fact: Any, sizes: Mapping[Any, Any], own: Set[Any]) -> bool:
    """Whether a fact about these sizes alone says that they never come."""
    try:
        return fact.free_symbols <= own and fact.xreplace(sizes) == sympy.false
    except ZeroDivisionError:
        return True  # the model divides by what is 0 then, as the rest of a chunk of 1 that is halved


def _at(size: Any, numbers: Mapping[Any, Any]) -> int:
    return size if isinstance(size, int) else int(size.xreplace(numbers))


def as_guards(facts: list[Fact], names: Mapping[str, str], hints: Mapping[str, int]) -> tuple[Guard, ...]:
    """The facts as plain data. names: symbols that go by another name. hints: the example's sizes.

    What cannot be written in the grammar of guards fixes the sizes in it: no other can be known to be right.
    """
    guards: dict[str, Guard] = {}
    for found in facts:
        text = _text(found.fact, names)
        if text is not None and can_be_read(text):
            guards.setdefault(text, Guard(text, _printable(found.where)))
            continue
        for symbol in sorted(map(str, found.fact.free_symbols)):
            fixed = f"{names.get(symbol, symbol)} == {hints[symbol]}"
            guards.setdefault(fixed, Guard(fixed, _printable(found.where)))
    if len(guards) > MOST_GUARDS:
        symbols = sorted({str(symbol) for found in facts for symbol in found.fact.free_symbols})
        where = f"{len(guards)} places, one of them {facts[0].where}"
        return tuple(Guard(f"{names.get(symbol, symbol)} == {hints[symbol]}", where) for symbol in symbols)
    return tuple(guards.values())


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else " " for c in line)[:300]


_RELATIONS = {
    sympy.Eq: "==", sympy.Ne: "!=", sympy.StrictLessThan: "<", sympy.LessThan: "<=",
    sympy.StrictGreaterThan: ">", sympy.GreaterThan: ">=",
}  # fmt: skip
#: torch's own functions of sizes, by the names of their classes.
_BINARY = {
    "FloorDiv": "//", "CleanDiv": "//", "Mod": "%", "PythonMod": "%", "IntTrueDiv": "/", "FloatTrueDiv": "/",
    "PowByNatural": "**", "FloatPow": "**",
}  # fmt: skip
_CALLS = {
    "Max": "max", "Min": "min", "CeilToInt": "ceil", "ceiling": "ceil", "FloorToInt": "floor", "floor": "floor",
    "TruncToInt": "trunc", "TruncToFloat": "trunc", "RoundToInt": "round", "ToFloat": "float", "Abs": "abs",
    "BitwiseFn_bitwise_and": "bit_and", "BitwiseFn_bitwise_or": "bit_or", "BitwiseFn_bitwise_xor": "bit_xor",
    "LShift": "shift",
}  # fmt: skip


def _text(fact: Any, names: Mapping[str, str]) -> str | None:
    """A sympy expression in the grammar of guards; None for what that has no words for."""

    def text(node: Any) -> str:
        arguments = node.args
        kind = type(node).__name__
        if node.is_Symbol:
            return names.get(str(node), str(node))
        if node.is_Integer:
            return str(int(node))
        if node.is_Float or kind == "Float":
            return repr(float(node))
        if type(node) in _RELATIONS:
            return f"{text(arguments[0])} {_RELATIONS[type(node)]} {text(arguments[1])}"
        if isinstance(node, sympy.And | sympy.Or):
            word = " and " if isinstance(node, sympy.And) else " or "
            return word.join(f"({text(argument)})" for argument in arguments)
        if isinstance(node, sympy.Not):
            return f"not ({text(arguments[0])})"
        if node.is_Add:
            positive = sorted(arguments, key=lambda term: bool(term.could_extract_minus_sign()))
            parts = [text(positive[0])]
            for term in positive[1:]:
                minus = term.could_extract_minus_sign()
                parts.append(f" - {text(-term)}" if minus else f" + {text(term)}")
            return f"({''.join(parts)})"
        if node.is_Mul:
            return f"({'*'.join(text(argument) for argument in arguments)})"
        if node.is_Pow and arguments[1].is_Integer and arguments[1] > 0:
            return f"({text(arguments[0])}**{int(arguments[1])})"
        if kind in _BINARY:
            return f"({text(arguments[0])} {_BINARY[kind]} {text(arguments[1])})"
        if kind in _CALLS:
            return f"{_CALLS[kind]}({', '.join(text(argument) for argument in arguments)})"
        if isinstance(node, torch_sympy.OpaqueUnaryFn_sqrt):
            return f"sqrt({text(arguments[0])})"
        raise ValueError(kind)

    try:
        return text(fact)
    except (ValueError, RecursionError):
        return None
