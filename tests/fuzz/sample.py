# SPDX-License-Identifier: Apache-2.0
"""A random program as data: inputs, modules and lines of Python. It can be printed, cut down and run anywhere."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

#: Whole numbers at which 32 bits, a float32 and a float64 end.
EDGES = (2**24 + 1, -(2**24) - 1, 2**31 - 1, -(2**31), 2**31, 2**32 + 3, -(2**40) - 1, 2**53 + 1)


@dataclasses.dataclass(frozen=True)
class Given:
    """One input. Whole numbers lie in [low, high) where these are given, else anywhere; data: its very values."""

    shape: tuple[int, ...]
    dtype: str
    low: float | None = None
    high: float | None = None
    data: Any = None

    def make(self, generator: np.random.Generator, sizes: dict[int, int], kind: str) -> torch.Tensor:
        """kind: "usual", "odd" (ties, wide, huge whole numbers) or "special" (NaN and infinities among the floats)."""
        dtype = getattr(torch, self.dtype)
        if self.data is not None:
            return torch.tensor(self.data, dtype=dtype).reshape(self.shape)
        shape = tuple(sizes.get(size, size) for size in self.shape)
        if dtype is torch.bool:
            return torch.from_numpy(np.asarray(generator.random(shape) < 0.5))
        if not dtype.is_floating_point:
            return self._whole(generator, shape, kind).to(dtype)
        values = np.asarray(generator.standard_normal(shape) * 2)
        if self.low is not None and self.high is not None:
            values = np.asarray(generator.uniform(self.low, self.high, shape))
        elif kind != "usual":
            way = int(generator.integers(3))
            if way == 0:  # ties, repeated
                values = np.asarray(generator.integers(-7, 8, shape) / 2)
            elif way == 1:
                values = np.asarray(generator.integers(-3, 4, shape) * 1.0)
            else:
                values = values * np.asarray(10.0 ** generator.integers(-3, 5, shape))
        if kind == "special" and values.size:
            flat = values.reshape(-1)
            flat[:: max(1, flat.size // 3)] = np.resize([np.nan, np.inf, -np.inf], len(flat[:: max(1, flat.size // 3)]))
            values = flat.reshape(shape)
        return torch.from_numpy(np.asarray(values)).to(dtype)

    def _whole(self, generator: np.random.Generator, shape: tuple[int, ...], kind: str) -> torch.Tensor:
        low, high = self.low, self.high
        if self.dtype == "uint8":
            low, high = low or 0, high or 256
        if low is not None and high is not None:
            return torch.from_numpy(np.asarray(generator.integers(int(low), int(high), shape)))
        values = np.asarray(generator.integers(-9, 10, shape))
        if kind != "usual":
            edges = [e for e in EDGES if self.dtype == "int64" or -(2**31) <= e < 2**31]
            values = np.where(generator.random(shape) < 0.4, generator.choice(edges, shape), values)
        return torch.from_numpy(np.asarray(values, np.int64))


@dataclasses.dataclass(frozen=True)
class Line:
    """One statement. name: what it defines, "" where it changes something in place."""

    text: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name} = {self.text}" if self.name else self.text


@dataclasses.dataclass(frozen=True)
class Sample:
    """inner: the first and last line (excluded) that a module of their own holds; (0, 0) for none."""

    inputs: dict[str, Given]
    lines: tuple[Line, ...]
    outputs: tuple[str, ...]
    modules: dict[str, str] = dataclasses.field(default_factory=dict)
    seed: int = 0
    inner: tuple[int, int] = (0, 0)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Sample:
        inputs = {name: Given(**{**given, "shape": tuple(given["shape"])}) for name, given in raw["inputs"].items()}
        lines = tuple(Line(**line) for line in raw["lines"])
        return cls(inputs, lines, tuple(raw["outputs"]), raw["modules"], raw["seed"], tuple(raw["inner"]))

    def source(self) -> str:
        first, last = self.inner
        head = ["import math", "import torch", "import torch.nn.functional as F", "from torch import nn", ""]
        if first < last:
            block = self.lines[first:last]
            takes = sorted(used(block) - {line.name for line in block})
            gives = [line.name for line in block if line.name]
            modules = {n: m for n, m in self.modules.items() if any(f"self.{n}(" in str(x) for x in block)}
            head += _class("Inner", modules, takes, [str(x) for x in block], gives, self.seed)
            modules = {n: m for n, m in self.modules.items() if n not in modules} | {"inner": "Inner()"}
            call = f"{', '.join(gives)}{',' * (len(gives) == 1)} = self.inner({', '.join(takes)})"
            body = [*map(str, self.lines[:first]), call, *map(str, self.lines[last:])]
        else:
            modules, body = self.modules, [str(x) for x in self.lines]
        return "\n".join(head + _class("M", modules, list(self.inputs), body, list(self.outputs), self.seed))

    def feeds(self) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
        """What it is called with: the example first."""
        sizes = {size for given in self.inputs.values() for size in given.shape if size > 1}
        grown = {size: size + 1 + (size + self.seed) % 3 for size in sizes}
        one = (3, 2, 4, 3, 5, 6)[self.seed % 6]
        plans = [
            ("example", {}, "odd" if self.seed % 4 == 0 else "usual"),
            ("other values", {}, "odd"),
            ("other sizes", grown, "odd"),
            *([("a size of 1", {one: 1}, "usual")] if one in sizes else []),
            ("NaN", {}, "special"),
        ]
        for label, mapping, kind in plans:
            # By name, so that a statement meets the same values alone and among others.
            values = {
                name: given.make(np.random.default_rng((self.seed, len(label), int(name[1:]))), mapping, kind)
                for name, given in self.inputs.items()
            }
            yield label, values

    def example(self) -> dict[str, torch.Tensor]:
        return next(iter(self.feeds()))[1]


def _class(
    name: str,
    modules: dict[str, str],
    takes: Sequence[str],
    body: Sequence[str],
    gives: Sequence[str],
    seed: int,
) -> list[str]:
    lines = [f"class {name}(nn.Module):"]
    if modules:
        lines += [
            "    def __init__(self):",
            "        super().__init__()",
            f"        torch.manual_seed({seed})",
        ]
        lines += [f"        self.{attribute} = {text}" for attribute, text in modules.items()]
    lines += [f"    def forward({', '.join(['self', *takes])}):"]
    lines += [f"        {text}" for text in body]
    return [
        *lines,
        f"        return {', '.join(gives)}{',' if name == 'Inner' and len(gives) == 1 else ''}",
        "",
        "",
    ]


_NAME = re.compile(r"(?<![\w.])([xv]\d+)\b")


def used(lines: Sequence[Line]) -> set[str]:
    """The inputs and values that these lines read or change."""
    return {name for line in lines for name in _NAME.findall(line.text)}


def trimmed(sample: Sample) -> Sample:
    """Without the lines, inputs and modules that no output depends on."""
    wanted, kept = set(sample.outputs), list[Line]()
    for line in reversed(sample.lines):
        if (line.name or _NAME.findall(line.text)[0]) in wanted:
            wanted |= used([line])
            kept.append(line)
    kept.reverse()
    text = "\n".join(map(str, kept))
    return dataclasses.replace(
        sample,
        lines=tuple(kept),
        inputs={name: given for name, given in sample.inputs.items() if name in wanted},
        modules={name: m for name, m in sample.modules.items() if f"self.{name}(" in text},
        inner=sample.inner if len(kept) == len(sample.lines) else (0, 0),
    )
