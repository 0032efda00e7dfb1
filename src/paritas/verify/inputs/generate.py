# SPDX-License-Identifier: Apache-2.0
"""Inputs to verify with, made from the manifest: several shapes, every kind of padding, the edges of masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from paritas import formulas
from paritas.errors import InputError
from paritas.formulas import NoFormula
from paritas.program import TensorSpec
from paritas.size_names import shown, size_names
from paritas.verify.inputs.edge_values import CORNERS, EXTREMES, WHITE, Row, fill
from paritas.verify.inputs.sizes import Ways

BATCH, LENGTH = 2, 8  # where a case is not about shapes
ODD, LONGER = (7, 5, 9), (33, 21, 17)  # as `_Plan.lengths`
UNBOUNDED = 2**31

Mask = Callable[[int, int], np.ndarray]  # (rows, columns) -> bool [rows, columns], True where a token is visible


@dataclasses.dataclass(frozen=True)
class Case:
    """One feed: an array per input, by name.

    edge: legal, but rarely meant to happen. optional: made up without knowing whether the model takes such values;
    where it does not, or where PyTorch cannot say what is right, that is a note and leaves nothing incomplete.
    otherwise: the same with sizes nearer to the example's, for an original that refuses these: no guard says that a
    mask is as long as what it masks, or that two lengths together have to fit into a table.
    """

    name: str
    feed: Mapping[str, np.ndarray]
    edge: bool = False
    optional: bool = False
    searched: bool = False  # picked out of many because the port is far off there
    special: bool = False  # holds NaN or infinities: a difference is a note, and decides nothing
    otherwise: tuple[Case, ...] = ()

    @property
    def shapes(self) -> str:
        return ", ".join(f"{name}[{', '.join(map(str, value.shape))}]" for name, value in self.feed.items())

    def __str__(self) -> str:
        return f"{self.name}{' (edge)' if self.edge else ''}: {self.shapes}"


@dataclasses.dataclass(frozen=True)
class _Plan:
    name: str
    batch: int
    lengths: Sequence[int]  # for the first dynamic dimension that is not the batch, the second, ...
    mask: Mask | None = None
    edge: bool = False
    rows: tuple[Row, ...] = ()  # what the rows of every input hold, in turn; drawn at random if empty
    first: int = 0  # the one that the first row is made by


def generate(
    specs: Sequence[TensorSpec],
    *,
    limits: Mapping[str, tuple[int, int]] | None = None,
    ways: Ways | None = None,
    seed: int = 0,
    ranges: Mapping[str, tuple[int, int]] | None = None,
) -> tuple[Case, ...]:
    """Cases for these inputs: batch 1, odd sizes, longer ones, for each mask all kinds of padding, corner values.

    ways: the guards that all sizes have to hold, and the example's sizes; then each dimension has a case at its
    smallest size, and at its largest if a guard says so, unless one of the others has it.

    Corner values are one token everywhere, the first and the last of the vocabulary; silence, white, a chequerboard;
    then, for floats, numbers around the smallest normal one and values that nobody has normalised. Several are the
    rows of one case. Masks and corner values have the shapes of other cases where they can, so that no engine compiles
    anew for them.

    limits: the sizes that a dynamic dimension's symbol may take, both included ({"s1": (1, 77)}). Equal
    symbols get equal sizes in all inputs. Integers are uniform in [0, high), or between the ends that `ranges` has for
    their input, both included, or else 0 and 1; floats are normal; the same seed gives the same cases. bfloat16 inputs
    are float32 arrays of bfloat16 values. Cases whose shapes the
    limits have made equal appear once. Raises `InputError` for a dimension that is no expression of symbols.
    """
    limits, ways = limits or {}, ways or Ways()
    masked = [spec for spec in specs if is_attention_mask(spec)]
    plans = [
        _Plan("batch 1", 1, (LENGTH, LENGTH + 3, LENGTH - 2)),
        _Plan("odd sizes", 3, ODD),
        _Plan("longer", BATCH, LONGER),
    ]
    if masked:
        plans += [
            _Plan("right padding", 4, (9, 11, 6), _right_padding),
            _Plan("left padding", 4, (9, 11, 6), _left_padding),
            _Plan("one visible token", 3, ODD, _one_visible),
            _Plan("a row fully masked", 3, ODD, _one_row_hidden, edge=True),
        ]
    plans += _corner_plans(specs, limits, ways)
    planned = [(plan, _sizes(specs, plan, limits, ways), "") for plan in plans]
    names = size_names(specs)
    planned += [
        (_Plan(f"{end} {names.get(symbol, symbol)}", 1, (LENGTH,), edge=True), sizes, symbol)
        for end, symbol, sizes in ways.edges(symbols(specs), limits)
        if all(sizes[symbol] != others[symbol] for _, others, _ in planned)
    ]
    batches = {symbol for symbol, is_batch in symbols(specs).items() if is_batch}
    cases: list[Case] = []
    seen: set[tuple[object, ...]] = set()
    for number, (plan, sizes, edge) in enumerate(planned):
        key = (plan.mask, plan.rows, plan.first, *shapes_of(specs, sizes).values())
        if key in seen:
            continue
        seen.add(key)
        case, *nearer = (
            Case(plan.name, _feed(specs, plan, wanted, (seed, number), ranges), plan.edge, bool(plan.rows or edge))
            for wanted in (sizes, *(() if plan.rows else ways.nearer(sizes, batches, limits, edge)))
        )
        cases.append(dataclasses.replace(case, otherwise=tuple(nearer)))
    return tuple(cases)


def _feed(
    specs: Sequence[TensorSpec],
    plan: _Plan,
    sizes: Mapping[str, int],
    seed: tuple[int, int],
    ranges: Mapping[str, tuple[int, int]] | None,
) -> dict[str, np.ndarray]:
    shapes, generator = shapes_of(specs, sizes), np.random.default_rng(seed)
    feed = {
        spec.name: _values(
            spec,
            shapes[spec.name],
            generator,
            mask=plan.mask,
            plan=plan,
            ends=(ranges or {}).get(spec.name, (0, 1)),
        )
        for spec in specs
    }
    feed |= {spec.name: _lengths(spec, shapes[spec.name], sizes, generator) for spec in specs if spec.counts}
    feed |= {s.name: np.zeros_like(feed[s.name]) for s in specs if s.forgets and sizes.get(s.forgets) != 1}
    return feed


def _corner_plans(specs: Sequence[TensorSpec], limits: Mapping[str, tuple[int, int]], ways: Ways) -> list[_Plan]:
    """One for each set of rows, or several, until all rows came up, where the batch is fixed and small."""
    held = [spec for spec in specs if spec.value is None and holds_values(spec)]
    plans = [_Plan("corner values", 3, ODD, rows=CORNERS)] if held else []
    if any(not is_whole(spec.dtype) for spec in held):
        plans.append(_Plan("tiny and large values", BATCH, LONGER, edge=True, rows=EXTREMES))
    found = []
    for plan in plans:
        shapes = shapes_of(specs, _sizes(specs, plan, limits, ways))
        together = min(shapes[spec.name][0] if spec.dims else 1 for spec in held)
        for first in range(0, len(plan.rows), max(together, 1)):
            name = f"{plan.name}, from row {first + 1}" if first else plan.name
            found.append(dataclasses.replace(plan, name=name, first=first))
    return found


def holds_values(spec: TensorSpec) -> bool:
    """Whether any value below `high` means something here: not in masks, positions and complex numbers."""
    structural = spec.name.endswith(("mask", "position_ids", "cache_position")) or spec.dtype == "bool"
    return not structural and not spec.dtype.startswith("complex")


def is_attention_mask(spec: TensorSpec) -> bool:
    """Whether padding is expressed through this input: named *attention_mask, integer or bool, [batch, length]."""
    return spec.name.endswith("attention_mask") and is_whole(spec.dtype) and len(spec.dims) == 2


def is_whole(dtype: str) -> bool:
    return dtype == "bool" or dtype.startswith(("int", "uint"))


def symbols(specs: Sequence[TensorSpec]) -> dict[str, bool]:
    """Every symbol of the dynamic dimensions, in order of appearance, and whether it counts the batch.

    The batch is the symbol that stands alone as the first dimension of some input.
    """
    found: dict[str, bool] = {}
    for spec in specs:
        for axis, dim in enumerate(spec.dims):
            if isinstance(dim, int):
                continue
            for name in _names(dim, spec):
                found[name] = found.get(name, False) or (axis == 0 and dim == name)
    return found


def draw(
    specs: Sequence[TensorSpec],
    shapes: Mapping[str, tuple[int, ...]],
    generator: np.random.Generator,
    mask: Mask | None = None,
) -> dict[str, np.ndarray]:
    """A feed of these shapes at random; `mask` says which tokens are visible, all if None."""
    return {spec.name: _values(spec, shapes[spec.name], generator, mask=mask) for spec in specs}


def shapes_of(specs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Every input's shape where the symbols of the dynamic dimensions have these sizes."""
    return {spec.name: tuple(_evaluate(dim, sizes, spec) for dim in spec.dims) for spec in specs}


def _sizes(
    specs: Sequence[TensorSpec], plan: _Plan, limits: Mapping[str, tuple[int, int]], ways: Ways
) -> dict[str, int]:
    lengths = list(plan.lengths)
    sizes = {}
    for symbol, is_batch in symbols(specs).items():
        # The last length serves all further symbols.
        wanted = plan.batch if is_batch else (lengths.pop(0) if len(lengths) > 1 else lengths[0])
        low, high = limits.get(symbol, (1, UNBOUNDED))
        sizes[symbol] = min(max(wanted, low), high)
    return ways.nearest(sizes, limits)


def _names(dim: str, spec: TensorSpec) -> Sequence[str]:
    try:
        return formulas.parsed(dim)[0]
    except NoFormula:
        raise InputError(f"Input {shown([spec])[0]}: the dimension {dim!r} is not an expression.") from None


def _evaluate(dim: int | str, sizes: Mapping[str, int], spec: TensorSpec) -> int:
    found = formulas.whole(dim, sizes)
    if found is None:
        raise InputError(f"Input {shown([spec])[0]}: the dimension {dim!r} cannot be evaluated.")
    return found


def _values(
    spec: TensorSpec,
    shape: tuple[int, ...],
    generator: np.random.Generator,
    *,
    mask: Mask | None,
    plan: _Plan | None = None,
    ends: tuple[int, int] = (0, 1),
) -> np.ndarray:
    if spec.value is not None:
        return np.array(spec.value, spec.dtype).reshape(shape)
    if is_attention_mask(spec):
        visible = mask(*shape) if mask else np.ones(shape, bool)
        return visible.astype(spec.dtype)
    if plan is not None and plan.rows and holds_values(spec):
        corners = _corners(spec, shape, plan, generator, ends)
        if corners is not None:
            return corners
    if not is_whole(spec.dtype):
        return _floats(spec.dtype, shape, generator)
    if spec.dtype == "bool":
        return np.ones(shape, bool) if spec.name.endswith("mask") else generator.random(shape) < 0.5
    if spec.name.endswith("mask"):
        return np.ones(shape, spec.dtype)
    if spec.name.endswith(("position_ids", "cache_position")):
        length = shape[-1] if shape else 1
        ids = np.arange(length) if spec.high is None else np.arange(length) % spec.high
        return np.broadcast_to(ids, shape).astype(spec.dtype, order="C")
    low, last = ends if spec.high is None else (0, spec.high - 1)
    values = generator.integers(low, last + 1, shape).astype(spec.dtype)
    if values.size > 1:
        # Both ends of the vocabulary: an engine with a smaller table, or one that counts from 1, shows here.
        values.flat[0], values.flat[1] = last, low
    return values


def _lengths(
    spec: TensorSpec, shape: tuple[int, ...], sizes: Mapping[str, int], generator: np.random.Generator
) -> np.ndarray:
    """Lengths of sequences, of which the longest is not padded; or an order."""
    dim = spec.counted
    longest = int(dim) if dim.isdigit() else _evaluate(dim, sizes, spec)
    if spec.is_order:
        return generator.permutation(longest).astype(spec.dtype).reshape(shape)
    found = generator.integers(1, longest + 1, shape).astype(spec.dtype)
    if found.size:
        found.flat[0] = longest
    return -np.sort(-found) if spec.counts.startswith("sorted ") else found


def _corners(
    spec: TensorSpec, shape: tuple[int, ...], plan: _Plan, generator: np.random.Generator, ends: tuple[int, int]
) -> np.ndarray | None:
    if is_whole(spec.dtype):
        if plan.rows is not CORNERS:
            return None
        last = ends[1] if spec.high is None else spec.high - 1
        return fill(plan.rows, plan.first, shape, last, generator).astype(spec.dtype)
    smallest = float(np.finfo("float32" if spec.dtype == "bfloat16" else spec.dtype).smallest_normal)
    largest = WHITE if plan.rows is CORNERS else smallest
    return as_floats(spec.dtype, fill(plan.rows, plan.first, shape, largest, generator))


def _floats(dtype: str, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    return as_floats(dtype, np.asarray(generator.standard_normal(shape), np.float32))


def as_floats(dtype: str, values: np.ndarray) -> np.ndarray:
    """`values` as an input of that dtype; bfloat16 as float32 of which bfloat16 keeps all bits."""
    if dtype == "bfloat16":
        bits = np.asarray(values, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
        return bits.view(np.float32)
    return values.astype(dtype)


def _padding(rows: int, columns: int) -> np.ndarray:
    """int [rows, 1]: how many of each row's columns are padding; none in the first, most in the last."""
    return (np.arange(rows) * (columns - 1) // max(rows - 1, 1))[:, None] if rows > 1 else np.array([[columns // 2]])


def _right_padding(rows: int, columns: int) -> np.ndarray:
    return np.arange(columns)[None] < columns - _padding(rows, columns)


def _left_padding(rows: int, columns: int) -> np.ndarray:
    return np.arange(columns)[None] >= _padding(rows, columns)


def _one_visible(rows: int, columns: int) -> np.ndarray:
    mask = np.ones((rows, columns), bool)
    mask[-1] = np.arange(columns) == 0
    return mask


def _one_row_hidden(rows: int, columns: int) -> np.ndarray:
    mask = np.ones((rows, columns), bool)
    mask[-1] = False
    return mask
