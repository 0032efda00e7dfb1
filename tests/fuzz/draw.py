# SPDX-License-Identifier: Apache-2.0
"""Draws the pieces of a statement: tensors that fit together, scalars, dimensions, shapes and indices."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tests.fuzz.sample import Given, Line

SIZES = (1, 2, 3, 3, 4, 5, 6)
KINDS = {
    "f": ("float32",),
    "i": ("int64", "int64", "int32"),
    "u": ("uint8",),
    "b": ("bool",),
    "n": ("float32", "int64", "int32", "uint8", "float32"),
    "a": ("float32", "int64", "int32", "uint8", "bool", "float32"),
}


class Draw:
    """One program in the making. Every value is computed by PyTorch as it is drawn, so that what follows fits it.

    reuse: how often an argument is a value that is there already, instead of a new input.
    """

    def __init__(self, rng: random.Random, reuse: float = 0.0, first: int = 0) -> None:
        self.rng, self.reuse = rng, reuse
        self.inputs: dict[str, Given] = {}
        self.lines: list[Line] = []
        self.modules: dict[str, str] = {}
        self.values: dict[str, torch.Tensor] = {}
        self.first = first

    # --- tensors -----------------------------------------------------------------------------

    def tensor(self, kind: str = "f", rank: int | tuple[int, int] = (0, 4), shape: Sequence[int] | None = None,
               low: float | None = None, high: float | None = None) -> str:  # fmt: skip
        dtypes = KINDS.get(kind, (kind,))
        low_rank, high_rank = (rank, rank) if isinstance(rank, int) else rank
        if low is None and self.rng.random() < self.reuse:
            fits = [
                name
                for name, value in self.values.items()
                if str(value.dtype).removeprefix("torch.") in dtypes
                and (tuple(value.shape) == tuple(shape) if shape is not None else low_rank <= value.dim() <= high_rank)
                and value.numel()
            ]
            if fits:
                return self.rng.choice(fits)
        if shape is None:
            shape = [self.rng.choice(SIZES) for _ in range(self.rng.randint(low_rank, high_rank))]
        return self.new(Given(tuple(shape), self.rng.choice(dtypes), low, high))

    def new(self, given: Given) -> str:
        name = f"x{self.first + len(self.inputs)}"
        self.inputs[name] = given
        generator = np.random.default_rng(self.rng.getrandbits(32))
        self.values[name] = given.make(generator, {}, "usual")
        return name

    def f(self, rank: int | tuple[int, int] = (0, 4), **options: Any) -> str:
        return self.tensor("f", rank, **options)

    def positive(self, rank: int | tuple[int, int] = (0, 4)) -> str:
        return self.tensor("f", rank, low=0.1, high=4.0)

    def i(self, rank: int | tuple[int, int] = (0, 4), **options: Any) -> str:
        return self.tensor("i", rank, **options)

    def n(self, rank: int | tuple[int, int] = (0, 4)) -> str:
        return self.tensor("n", rank)

    def a(self, rank: int | tuple[int, int] = (0, 4)) -> str:
        return self.tensor("a", rank)

    def b(self, rank: int | tuple[int, int] = (0, 4), **options: Any) -> str:
        return self.tensor("b", rank, **options)

    def like(self, x: str, kind: str = "", low: float | None = None, high: float | None = None) -> str:
        """What broadcasts to the shape of `x`; of its kind unless told."""
        shape = list(self.shape(x))
        way = self.rng.random()
        if way < 0.25 and shape:
            del shape[: self.rng.randint(1, len(shape))]
        elif way < 0.5:
            shape = [1 if self.rng.random() < 0.5 else size for size in shape]
        return self.tensor(kind or self.kind(x), shape=shape, low=low, high=high)

    def same(self, x: str, kind: str = "", low: float | None = None, high: float | None = None) -> str:
        return self.tensor(kind or self.kind(x), shape=self.shape(x), low=low, high=high)

    def index(self, shape: Sequence[int], size: int, negative: bool = False) -> str:
        return self.tensor("int64", shape=shape, low=-size if negative else 0, high=size)

    def kind(self, x: str) -> str:
        return str(self.values[x].dtype).removeprefix("torch.")

    def shape(self, x: str) -> tuple[int, ...]:
        return tuple(self.values[x].shape)

    def rank(self, x: str) -> int:
        return self.values[x].dim()

    # --- lines -------------------------------------------------------------------------------

    def let(self, text: str) -> str:
        """A line that defines a value; computed at once. Raises what PyTorch raises."""
        name = f"v{self.first + len(self.lines)}"
        value = self._run(f"{name} = {text}", name)
        if not isinstance(value, torch.Tensor) or value.numel() > 4096:
            raise TypeError(f"{text} is no tensor, or too large")
        self.lines.append(Line(text, name))
        self.values[name] = value
        return name

    def do(self, text: str) -> None:
        """A line that changes a value in place."""
        self._run(text)
        self.lines.append(Line(text))

    def module(self, text: str) -> str:
        name = f"m{self.first + len(self.modules)}"
        self.modules[name] = text
        return f"self.{name}"

    def _run(self, text: str, name: str = "") -> Any:
        import types

        torch.manual_seed(0)
        this = types.SimpleNamespace(
            **{n: eval(m, {"nn": torch.nn, "torch": torch}).eval() for n, m in self.modules.items()}  # noqa: S307
        )
        space = {
            "math": math,
            "torch": torch,
            "F": torch.nn.functional,
            "nn": torch.nn,
            "self": this,
            **self.values,
        }
        with torch.no_grad():
            exec(text, space)  # noqa: S102 - written by our own tables
        return space.get(name)

    # --- numbers -----------------------------------------------------------------------------

    def pick(self, *options: Any) -> Any:
        return self.rng.choice(options)

    def int(self, low: int = -3, high: int = 4) -> int:
        return self.rng.randint(low, high)

    def scalar(self) -> str:
        return repr(self.pick(-2.5, -1.5, -1, -3, 2, 3, 7, 0.5, 1.5, 0.1, 2.5, 3.0, -2.0, 1, 4, True, 0))

    def divisor(self) -> str:
        return repr(self.pick(-2.5, -3, 2, 3, 7, 0.5, 1.5, 0.1, -2, -1, 4, 2.0))

    def dim(self, x: str) -> int:
        rank = self.rank(x)
        return self.rng.randrange(-rank, rank) if rank else self.pick(0, -1)

    def two_dims(self, x: str) -> tuple[int, int]:
        a, b = self.rng.sample(range(self.rank(x)), 2)
        return a - self.rank(x) * self.pick(0, 1), b - self.rank(x) * self.pick(0, 1)

    def dims(self, x: str) -> str:
        """Some dimensions as an argument: one, a tuple, or none at all."""
        rank = self.rank(x)
        if not rank or self.rng.random() < 0.15:
            return "()" if not rank else str(self.dim(x))
        if self.rng.random() < 0.5:
            return str(self.dim(x))
        some = self.rng.sample(range(rank), self.rng.randint(1, rank))
        return str(tuple(d - rank * self.pick(0, 1) for d in some))

    def keep(self) -> str:
        return self.pick("", "", ", keepdim=True", ", keepdim=False")

    def size(self, x: str, dim: int) -> int:
        return self.shape(x)[dim] if self.rank(x) else 1

    def target(self, x: str) -> str:
        """A shape to reshape `x` to, in numbers or with the sizes of `x`."""
        shape = list(self.shape(x))
        if shape and self.rng.random() < 0.4:
            start = self.rng.randrange(len(shape))
            parts = [f"{x}.shape[{axis}]" for axis in range(start)] + ["-1"]
            return f"({', '.join(parts)},)"
        count, made = self.values[x].numel(), list[int]()
        for _ in range(self.rng.randint(0, 3)):
            divisors = [d for d in range(1, count + 1) if count % d == 0]
            made.append(self.rng.choice(divisors))
            count //= made[-1]
        made.append(count)
        self.rng.shuffle(made)
        if self.rng.random() < 0.4:
            made[self.rng.randrange(len(made))] = -1
        return str(tuple(made))

    def slices(self, x: str) -> str:
        """Indices of `x` in brackets: numbers, slices, None, ellipses, tensors and masks."""
        rank, parts, axis = self.rank(x), list[str](), 0
        dots = False
        while axis < rank and self.rng.random() < 0.9:
            size, way = self.shape(x)[axis], self.rng.random()
            if way < 0.2:
                parts.append(str(self.rng.randrange(-size, size)))
            elif way < 0.7:
                start, stop = (
                    self.pick("", "", 0, 1, -1, -2, -size),
                    self.pick("", "", 1, 2, -1, size, size + 3),
                )
                parts.append(f"{start}:{stop}{self.pick('', '', ':2', ':3')}")
            elif way < 0.8:
                parts.append("None")
                continue
            elif way < 0.9 and not dots:
                parts.append("...")
                dots, axis = True, axis + self.rng.randint(0, rank - axis)
                continue
            else:
                parts.append(self.index(self.pick((), (2,), (3,), (2, 2)), size, negative=True))
            axis += 1
        if dots and axis < rank:
            parts = parts[: parts.index("...") + 1]
        return ", ".join(parts) or "..."

    def one_slice(self, size: int) -> str:
        start = self.pick("", 0, 1, -1, -2)
        return f"{start}:{self.pick('', 1, 2, -1, size)}{self.pick('', '', ':2')}"
