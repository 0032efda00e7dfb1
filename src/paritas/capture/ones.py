# SPDX-License-Identifier: Apache-2.0
"""Whether the graph is right for dimensions of size 1, which torch.export takes to be impossible.

A branch on `batch == 1`, a squeeze, a sum that broadcasts: at size 1 a model may go another way than the one that was
captured, and most go the same. Nothing but running both tells which, so both are run, on the example cut to size 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch

from paritas.capture.export import quiet
from paritas.capture.forward import Call
from paritas.capture.forward_names import run_graph, with_padding
from paritas.capture.guards import Fact
from paritas.capture.normalise import expression
from paritas.capture.origin import origin
from paritas.pytree import describe_output

#: Beyond so many free dimensions, only those are tried of which the model's code has asked something.
MOST = 6
#: What two ways of computing the same may differ by, relative to mean and value: roundings, but no other formula.
ROUNDING, HALF = 1e-4, 5e-2


def decided(
    facts: Sequence[Fact],
    model: torch.nn.Module,
    exported: torch.export.ExportedProgram,
    placeholders: Mapping[str, torch.fx.Node],
    call: Call,
    equal: Mapping[str, str],
) -> list[Fact]:
    """The facts without those that only deny sizes of 1 for which the graph is right all the same; with those of 1
    for which it is wrong. equal: sizes that go by another's name."""
    trial = _Trial(model, exported, placeholders, call, equal)
    symbols = sorted(trial.hints, key=str)
    groups = [(symbol,) for symbol in symbols]
    if len(symbols) > 1:
        groups.append(tuple(symbols))
    right: set[tuple[Any, ...]] = set()
    wrong: list[Fact] = []
    for group in groups:
        sizes = trial.hints | dict.fromkeys(group, 1)
        broken = [found for found in facts if _is_false(found.fact, sizes)]
        if any(not found.assumed for found in broken):
            right.add(group)  # refused for another reason
            continue
        if len(symbols) > MOST and not broken:
            continue
        if any(set(one) <= set(group) for one in _denied(wrong)):
            continue
        same = trial.same(sizes, thoroughly=bool(broken))
        if same is None and broken and len(group) == 1:
            same = trial.same_beside(group[0], facts)
        if same or (same is None and trial.goes_on):
            right.add(group)
        elif same is False:
            where = broken[0].where if broken else trial.where
            wrong.append(Fact(sympy.Or(*(sympy.Ne(symbol, 1) for symbol in group)), where))
    kept = []
    for found in facts:
        breaks = [g for g in groups if _is_false(found.fact, trial.hints | dict.fromkeys(g, 1))]
        if not found.assumed or any(group not in right for group in breaks):
            kept.append(found)
    return [*kept, *(found for found in wrong if found.fact not in {other.fact for other in kept})]


def _denied(wrong: Sequence[Fact]) -> list[set[Any]]:
    return [found.fact.free_symbols for found in wrong]


def _is_false(fact: Any, sizes: Mapping[Any, int]) -> bool:
    try:
        return bool(fact.xreplace({s: sympy.Integer(n) for s, n in sizes.items()}) == sympy.false)
    except Exception:  # noqa: BLE001 - a division by zero, in any of torch's own functions
        return True


@dataclasses.dataclass
class _Trial:
    """Runs the model and its graph on examples of other sizes."""

    model: torch.nn.Module
    exported: torch.export.ExportedProgram
    placeholders: Mapping[str, torch.fx.Node]
    call: Call
    equal: Mapping[str, str]

    def __post_init__(self) -> None:
        self.where = ""  # the line whose size is another than the graph says
        hints: dict[Any, int] = {}
        for node in self.placeholders.values():
            for size in node.meta["val"].shape:
                if isinstance(size, torch.SymInt):
                    known = size.node.shape_env.backed_var_to_val
                    hints |= {s: int(known[s]) for s in getattr(expression(size), "free_symbols", ())}
        named = {str(symbol): symbol for symbol in hints}
        #: Sizes that go by another's name -> that one.
        self.same_as = {named[a]: named[b] for a, b in self.equal.items() if a in named and b in named}
        self.hints = {symbol: size for symbol, size in hints.items() if symbol not in self.same_as}

    @property
    def goes_on(self) -> bool:
        """Whether it is a step of a generation, which takes one token at a time whatever an example can show."""
        return any(structure["kind"] == "cache" for structure in self.call.nesting.values())

    def same(self, sizes: Mapping[Any, int], *, thoroughly: bool) -> bool | None:
        """Whether model and graph agree on inputs of these sizes; None if there is no telling."""
        numbers = {symbol: sympy.Integer(size) for symbol, size in sizes.items()}
        numbers |= {symbol: numbers[other] for symbol, other in self.same_as.items()}
        tensors = self._cut(numbers)
        if tensors is None:
            return None
        for other in (False, True) if thoroughly else (False,):
            found = self._agree(_redrawn(tensors) if other else tensors, numbers)
            if found is None:  # ids of places that are no longer there, for one
                found = self._agree(_zeroed(_redrawn(tensors) if other else tensors), numbers)
            if not found:
                return found
        return True

    def same_beside(self, symbol: Any, facts: Sequence[Fact]) -> bool | None:
        """As `same`, with another size shorter by as much: a mask is as long as a cache and its new tokens."""
        for other, size in self.hints.items():
            shorter = size - (self.hints[symbol] - 1)
            sizes = self.hints | {symbol: 1, other: shorter}
            if other == symbol or shorter < 2:
                continue
            if any(not found.assumed and _is_false(found.fact, sizes) for found in facts):
                continue
            if (found := self.same(sizes, thoroughly=True)) is not None:
                return found
        return None

    def _cut(self, numbers: Mapping[Any, Any]) -> dict[str, torch.Tensor] | None:
        if self.call.prepared:
            return None  # computed from values of other inputs, which no longer fit
        cut = {}
        for name, node in self.placeholders.items():
            value = self.call.tensors[name]
            shape = [
                size if isinstance(size, int) else int(size.xreplace(numbers))
                for size in map(expression, node.meta["val"].shape)
            ]
            if any(not 0 < size <= has for size, has in zip(shape, value.shape, strict=True)):
                return None
            cut[name] = value[tuple(slice(size) for size in shape)].contiguous()
        return cut

    def _agree(self, tensors: Mapping[str, torch.Tensor], numbers: Mapping[Any, Any]) -> bool | None:
        with quiet(), torch.no_grad():
            try:
                want, _ = describe_output(self.model(**self.call.arguments(_copies(tensors))))
            except Exception:  # noqa: BLE001 - in whichever way a model refuses its inputs
                # Whole numbers may have to fit to sizes: ids to the number of images, for one.
                return None if any(_is_whole(tensor) for tensor in tensors.values()) else False
            try:
                got = run_graph(self.exported, _copies(tensors), _Sized(self.exported, numbers))
            except _OtherSize as other:
                self.where = str(origin(other.node))
                return False
            except Exception:  # noqa: BLE001 - operators of torch raise anything
                return False
        if len(got) != len(want):
            return None
        return all(_close(one, other) for one, other in zip(got, want, strict=True))


class _OtherSize(Exception):
    """A tensor has another size than the graph says of `node`."""

    def __init__(self, node: torch.fx.Node) -> None:
        super().__init__(node.name)  # torch.fx writes over what is given here
        self.node = node


class _Sized(torch.fx.Interpreter):
    """Runs a graph whose sizes engines rely on: of `x[-2:]`, whose length is 2 for torch.export, 1 may be there."""

    def __init__(self, exported: torch.export.ExportedProgram, numbers: Mapping[Any, Any]) -> None:
        super().__init__(exported.graph_module)
        self.numbers = numbers

    def run_node(self, n: torch.fx.Node) -> Any:
        value = super().run_node(n)
        told = n.meta.get("val")
        if isinstance(value, torch.Tensor) and isinstance(told, torch.Tensor):
            for size, says in zip(value.shape, map(expression, told.shape), strict=False):
                says = says if isinstance(says, int) else says.xreplace(self.numbers)
                if says != size and not getattr(says, "free_symbols", ()):
                    raise _OtherSize(n)
        return value


def _copies(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _is_whole(tensor: torch.Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool)


def _zeroed(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Whole numbers that are 0, but for masks."""
    return {
        name: torch.zeros_like(value) if _is_whole(value) and not name.endswith("mask") else value
        for name, value in tensors.items()
    }


def _redrawn(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Other floats, as large as they were, and a mask that hides something."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: (torch.randn(value.shape, generator=generator) * value.float().abs().mean()).to(value.dtype)
        if value.is_floating_point()
        else with_padding(name, value)
        for name, value in tensors.items()
    }


def _close(got: Any, want: Any) -> bool:
    if not isinstance(got, torch.Tensor) or not isinstance(want, torch.Tensor):
        return bool(got == want)
    if got.shape != want.shape or got.dtype != want.dtype:
        return False
    if not (got.is_floating_point() or got.is_complex()):
        return torch.equal(got, want)
    if not torch.equal(got.isnan(), want.isnan()) or not torch.equal(got.isinf(), want.isinf()):
        return False
    most = HALF if want.dtype in (torch.float16, torch.bfloat16) else ROUNDING
    wide = torch.complex128 if got.is_complex() else torch.float64
    got, want = got.to(wide).nan_to_num(0, 0, 0), want.to(wide).nan_to_num(0, 0, 0)
    if not got.numel():
        return True
    return bool(((got - want).abs() <= most * (want.abs().mean() + want.abs()) + 1e-12).all())
