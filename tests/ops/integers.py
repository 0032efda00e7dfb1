# SPDX-License-Identifier: Apache-2.0
"""Integers that PyTorch's own samples lack: negative ones, large ones and their neighbours, of every width."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from making import Case, Given, case, values

WIDTHS = ("int64", "int32", "int16", "int8", "uint8")

#: Neighbours of the largest number that float32 counts to, and of the largest that 32 bits hold.
_SMALL = list(range(-7, 8))
_LARGE = [2**24 + 1, -(2**24) - 1, 2**31 - 1, -(2**31 - 1)]

_SCALARS = (-7, -2, -1, 1, 2, 3, 7, 2**24 + 1)

BORDER = 2**31


def _pool(dtype: str) -> list[int]:
    info = torch.iinfo(getattr(torch, dtype))
    edges = [] if dtype in ("int64", "int32") else [info.min, info.max]
    return [n for n in dict.fromkeys([*_SMALL, *_LARGE, *edges]) if info.min <= n <= info.max]


#: What an operator's second operand may be: torch raises for a zero divisor or a negative shift.
_SECONDS: tuple[Callable[[int], bool], ...] = (
    lambda n: True,
    lambda n: n != 0,
    lambda n: n >= 0,
    lambda n: 0 <= n < 8,
)


def integer_cases(targets: Collection[str]) -> Iterator[Case]:
    """For each operator of one to three tensors or numbers and nothing else: a row or a grid of such integers.

    What torch refuses is left out.
    """
    for target in sorted(targets):
        overload = case(target).overload
        schema = overload._schema
        kinds = [str(a.type) for a in schema.arguments if not a.has_default_value()]
        if target.startswith(_OTHERS) or not 0 < len(kinds) < 4 or not set(kinds) <= {"Tensor", "number"}:
            continue
        if kinds[0] != "Tensor" and "Tensor" not in kinds:
            continue
        for dtype in WIDTHS:
            yield from _of(target, kinds, dtype)


#: Their arguments are indices, counts, sizes or boundaries in order, not numbers to compute with.
_OTHERS = (
    "aten.bucketize",
    "aten.searchsorted",
    "aten.bincount",
    "aten.one_hot",
    "aten.repeat_interleave",
    "aten.embedding",
    "aten.take",
    "aten.tril_ind",
)


def _of(target: str, kinds: list[str], dtype: str) -> Iterator[Case]:
    pool = _pool(dtype)
    if kinds == ["Tensor"]:
        yield from _accepted(case(target, values(pool, dtype)))
        return
    if kinds == ["Tensor", "Tensor"]:
        for second in _SECONDS:
            others = [n for n in pool if second(n)]
            pairs = [(a, b) for a in pool for b in others]
            found = list(_accepted(_pairs(target, pairs, dtype)))
            if found:
                yield from found
                return
        return
    if kinds in (["Tensor", "number"], ["number", "Tensor"]):
        for number in _SCALARS:
            if dtype in ("int8", "uint8") and number > 127:
                continue
            for second in _SECONDS if kinds[0] == "number" else _SECONDS[:1]:
                row = values([n for n in pool if second(n)], dtype)
                one = case(target, row, number) if kinds[0] == "Tensor" else case(target, number, row)
                found = list(_accepted(one))
                if found:
                    yield from found
                    break
        return
    rows = [
        [n for n, _, _ in _triples(pool)],
        [n for _, n, _ in _triples(pool)],
        [n for _, _, n in _triples(pool)],
    ]
    made: list[Any] = [values(row, dtype) if kind == "Tensor" else 2 for row, kind in zip(rows, kinds, strict=False)]
    yield from _accepted(case(target, *made))


def _triples(pool: list[int]) -> list[tuple[int, int, int]]:
    return list(itertools.islice(zip(pool * 3, pool[3:] * 4, pool[7:] * 5, strict=False), 40))


def _pairs(target: str, pairs: list[tuple[int, int]], dtype: str) -> Case:
    return case(target, values([a for a, _ in pairs], dtype), values([b for _, b in pairs], dtype))


def _accepted(one: Case) -> Iterator[Case]:
    """The case if torch computes it. Elements whose results leave 32 bits have a case of their own."""
    tensors = one.tensors()
    try:
        outputs = one.eager(tensors)
    except Exception:  # noqa: BLE001 - torch has no such kernel, or refuses a value
        return
    if not all(isinstance(value, torch.Tensor) for value in outputs):
        return
    rows = {value.shape for value in (*tensors, *outputs)}
    if len(rows) != 1:
        yield one
        return
    beyond = _beyond(outputs)
    if beyond.all() or not beyond.any():
        yield one
        return
    for kept in (~beyond, beyond):
        yield one.with_givens(lambda given: _kept(given, kept))  # noqa: B023


def _kept(given: Given, mask: torch.Tensor) -> Given:
    return values(torch.tensor(given.data)[mask].tolist(), given.dtype)


def _beyond(outputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Where one of the results of int64 does not fit into 32 bits."""
    large = [(value >= BORDER) | (value < -BORDER) for value in outputs if value.dtype == torch.int64]
    return torch.stack(large).any(0) if large else torch.zeros_like(outputs[0], dtype=torch.bool)


def leaves_32_bits(one: Case) -> bool:
    """Whether a number that the case begins or ends with needs 64 bits."""
    tensors = one.tensors()
    wide = [value for value in (*tensors, *one.eager(tensors)) if value.dtype == torch.int64]
    return any(bool(_beyond([value]).any()) for value in wide)
