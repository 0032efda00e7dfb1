# SPDX-License-Identifier: Apache-2.0
"""More ordinary programs, of kinds that fewer users bring: see `ordinary_programs`."""

from __future__ import annotations

import collections
import copy
import enum
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from ordinary_programs import BOTH, INPUT, XS, Module, Op, X, Y
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from paritas.errors import CaptureError, LoweringError, SourceError, UnsupportedOps


class Does(Module):
    """A function of itself and its inputs as a model, with the parts that it needs."""

    def forward(self, x):
        return self.function(self, x)


def op(function: Callable[[Any], Any]) -> Callable[[], Any]:
    return lambda: Op(function)


def does(function: Callable[[Any, Any], Any], **parts: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: Does(function=function, **{name: make() for name, make in parts.items()})


def linear() -> nn.Module:
    return nn.Linear(6, 6)


class ByNameOnly(nn.Module):
    def forward(self, *, x, y=None):
        return x * 2 if y is None else x + y


class Parted(NamedTuple):
    logits: Any
    hidden: Any = None


class OfAList(nn.Module):
    def forward(self, xs):
        return torch.cat(xs, 1).sum(1)


class OfAPair(nn.Module):
    def forward(self, p):
        a, b = p
        return a - 2 * b


class Buffered(nn.Module):
    def __init__(self, persistent):
        super().__init__()
        self.register_buffer("shift", torch.arange(6.0), persistent=persistent)

    def forward(self, x):
        return x + self.shift


class CountsForNobody(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.calls += 1
        return x * 2


class RunningMean(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        self.mean.mul_(0.9).add_(x.mean((0, 1)) * 0.1)
        return x - self.mean


@torch.jit.script
def scripted(x):
    return x * 2 + 1


class Doubles(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0) * 2

    @staticmethod
    def backward(ctx, grad):
        return grad


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 6)
        self.b = nn.Sequential(self.a, nn.ReLU(), self.a)

    def forward(self, x):
        return self.b(x) + self.a(x)


def compiled_forward() -> nn.Module:
    """Made when it is needed: torch.compile imports its compiler as it decorates."""

    class CompiledForward(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 6)

        @torch.compile
        def forward(self, x):
            return self.a(x)

    return CompiledForward()


class Inferred(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 6)

    @torch.inference_mode()
    def forward(self, x):
        return self.a(x)


def in_bfloat16(self, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = self.a(x)
    return y.float()


def with_gradients(x):
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        return torch.autograd.grad((y**3).sum(), y)[0]


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).mT


def parametrised():
    layer = nn.Linear(6, 6)
    nn.utils.parametrize.register_parametrization(layer, "weight", Symmetric())
    return nn.Sequential(layer)


def lazy_that_has_run():
    model = nn.Sequential(nn.LazyLinear(4))
    model(X)
    return model


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, dtype=torch.complex64))

    def forward(self, x):
        return (x * self.w).abs()


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("w", torch.eye(6).to_sparse())

    def forward(self, x):
        return torch.sparse.mm(self.w, x[0].T).T


DEFAULT = torch.arange(6.0)


class TensorDefault(nn.Module):
    def forward(self, x, shift=DEFAULT):
        return x + shift


class GrowingDefault(nn.Module):
    def forward(self, x, seen=[]):  # noqa: B006 - that is what it is about
        seen.append(1)
        return x * len(seen)


class Colour(enum.Enum):
    RED = 2


class EnumDefault(nn.Module):
    def forward(self, x, colour=Colour.RED):
        return x * colour.value


class FunctionByName(nn.Module):
    def forward(self, x, act="relu"):
        return getattr(F, act)(x)


class OptionalEntry(nn.Module):
    def forward(self, batch):
        x, mask = batch["x"], batch.get("mask")
        return {"out": x if mask is None else x * mask, "name": batch.get("name")}


class SecondOptional(nn.Module):
    def forward(self, x, a=None, b=None):
        x = x if a is None else x * a
        return x if b is None else x + b


def printing(x):
    print("seen", x.shape)
    return x * 2


def asserting_without_words(x):
    lengths = (x != 0).sum(dim=1)
    assert lengths.max().item() <= x.shape[1]
    return x * lengths[:, None]


def asserting(x):
    assert (x < 1e9).all(), "too large"
    return x * 2


def in_a_copy(x):
    y = x.clone()
    y[y > 0] = y[y > 0] * 2
    return y


class Property(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 6)

    @property
    def w(self):
        return self.a.weight * 2

    def forward(self, x):
        return x @ self.w


def said_by_name(forward):
    """A decorator that looks for what it is about among the arguments by name, and sets it itself."""

    @functools.wraps(forward)
    def decorated(self, *args, **kwargs):
        wanted = kwargs.get("doubled", False)
        return forward(self, *args, **{**kwargs, "doubled": True}) / (1 if wanted else 2)

    return decorated


class Decorated(nn.Module):
    @said_by_name
    def forward(self, x, doubled=False):
        return x * (2 if doubled else 1)


class Magic(nn.Module):
    def __getattr__(self, name):
        return 3.0 if name == "magic" else super().__getattr__(name)

    def forward(self, x):
        return x * self.magic


class PlainTensors(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.more = torch.arange(6.0), {"k": torch.ones(6)}

    def forward(self, x):
        return x * self.w + self.more["k"]


class CachesByLength(nn.Module):
    def __init__(self):
        super().__init__()
        self.tables = {}

    def forward(self, x):
        n = x.shape[1]
        if n not in self.tables:
            self.tables[n] = torch.arange(n)[:, None] * 1.0
        return x * self.tables[n]


class GrowingTable(nn.Module):
    def __init__(self):
        super().__init__()
        self.t = torch.arange(5.0)[:, None]

    def forward(self, x):
        if x.shape[1] > self.t.shape[0]:
            self.t = torch.arange(float(x.shape[1]))[:, None]
        return x * self.t[: x.shape[1]]


@functools.lru_cache
def table_of(size):
    return torch.arange(6.0) * size


class OffsetBag(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.EmbeddingBag(10, 3)

    def forward(self, ids, offsets):
        return self.a(ids, offsets)


BAGS = [
    {"ids": torch.tensor([1, 2, 3, 4]), "offsets": torch.tensor([0, 2])},
    {"ids": torch.tensor([5, 2, 3, 4, 1]), "offsets": torch.tensor([0, 3])},
]


def half(x):
    return torch.cond(x.sum() > 0, lambda a: a * 2, lambda a: a - 1, (x,))


def shrinking(x):
    while x.abs().max() > 0.5:
        x = x * 0.5
    return x


#: name -> the model, and inputs: those of the capture, then others.
RIGHT: dict[str, tuple[Callable[[], Any], list[Any]]] = {
    "arguments by name only": (ByNameOnly, [{"x": X, "y": X}, {"x": Y, "y": Y}]),
    "a NamedTuple of a list": (op(lambda x: Parted(x * 2, [x, x + 1])), BOTH),
    "combinations": (op(lambda x: torch.combinations(x[0, 0, :3], 2) + torch.combinations(x[0, 0, :2], 2, True)), BOTH),
    "a loss that looks for negative variances": (op(lambda x: F.gaussian_nll_loss(x, x * 2, x[..., :1].abs())), BOTH),
    "a loss of a single row": (
        op(lambda x: F.multilabel_margin_loss(x[0, 0, :4], torch.tensor([1, 0, -1, 2]), reduction="none")), BOTH,
    ),
    "a loss of each row, beside something in place": (
        op(lambda x: (x.clone().add_(1), F.cross_entropy(x[0, :3], torch.tensor([1, 0, 2]), reduction="none"))), BOTH,
    ),
    "a list of free length": (OfAList, [{"xs": [X, X]}, {"xs": [Y, Y + 1]}]),
    "a pair": (OfAPair, [{"p": (X, X * 2)}, {"p": (Y, Y * 2)}]),
    "a pair by position": (OfAPair, [((X, X * 2),), ((Y, Y * 2),)]),
    "the second optional tensor": (SecondOptional, [{"x": X, "b": X}, {"x": Y, "b": Y}]),
    "a dict with an optional entry": (OptionalEntry, [{"batch": {"x": X}}, {"batch": {"x": Y}}]),
    "a dict with a text": (
        OptionalEntry, [{"batch": {"x": X, "name": "a"}}, {"batch": {"x": Y, "name": "a"}}],
    ),
    "a ParameterDict": (
        does(
            lambda m, x: x * m.p["a"] + m.p["if"],
            p=lambda: nn.ParameterDict({"a": torch.ones(6), "if": torch.ones(6)}),
        ),
        BOTH,
    ),
    "a ParameterList": (
        does(lambda m, x: sum(x * p for p in m.p), p=lambda: nn.ParameterList([torch.ones(6), torch.ones(6)])), BOTH,
    ),
    "a buffer that is not saved": (lambda: Buffered(False), BOTH),
    "a counter that nobody reads": (CountsForNobody, BOTH),
    "a scripted function": (op(lambda x: scripted(x)), BOTH),
    "func.grad": (op(lambda x: torch.func.grad(lambda a: (a**3).sum())(x)), BOTH),
    "an autograd.Function": (op(lambda x: Doubles.apply(x)), BOTH),
    "modules used twice": (Reused, BOTH),
    "forward compiled by a decorator": (compiled_forward, BOTH),
    "checkpoint": (does(lambda m, x: checkpoint(m.a, x, use_reentrant=False), a=linear), BOTH),
    "inference_mode": (Inferred, BOTH),
    "a parametrisation of one's own": (parametrised, INPUT),
    "spectral_norm": (lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4))), INPUT),
    "a lazy layer that has run": (lazy_that_has_run, INPUT),
    "a complex parameter": (Complex, BOTH),
    "a default that is a tensor": (TensorDefault, BOTH),
    "an enumeration as default": (EnumDefault, BOTH),
    "a function by its name": (FunctionByName, [{"x": X, "act": "gelu"}, {"x": Y, "act": "gelu"}]),
    "a constant of NumPy": (op(lambda x: x * torch.from_numpy(np.arange(6, dtype=np.float32))), BOTH),
    "a number of NumPy": (op(lambda x: x * np.float64(2.5)), BOTH),
    "print": (op(printing), BOTH),
    "assert on values": (op(asserting), BOTH),
    "None among the outputs": (op(lambda x: (None, x * 2, None)), BOTH),
    "lists of lists": (op(lambda x: [[x, x + 1], [x * 2]]), BOTH),
    "unbind": (op(lambda x: x.unbind(-1)), BOTH),
    "what a mask chooses": (op(lambda x: x[x > 0]), BOTH),
    "written where a mask is": (op(in_a_copy), BOTH),
    "a bag with offsets": (OffsetBag, BAGS),
    "a property": (Property, BOTH),
    "__getattr__": (Magic, BOTH),
    "a decorator that reads by name": (Decorated, [{"x": X, "doubled": True}, {"x": Y, "doubled": True}]),
    "tensors in plain attributes": (PlainTensors, BOTH),
    "a table that grows": (GrowingTable, BOTH),
    "lru_cache": (op(lambda x: x * table_of(3)), BOTH),
    "double inside": (op(lambda x: (x.double() ** 2).float()), BOTH),
    "a tensor without dimensions": (op(lambda x: x * 2), [{"x": torch.tensor(2.0)}, {"x": torch.tensor(3.0)}]),
}  # fmt: skip

#: Right, or refused at the door where sizes differ from the example's.
RIGHT_OR_REFUSED: dict[str, tuple[Callable[[], Any], list[Any]]] = {
    "a longer list": (OfAList, [{"xs": [X, X]}, {"xs": [Y, Y + 1, Y]}]),
    "an entry that comes later": (OptionalEntry, [{"batch": {"x": X}}, {"batch": {"x": Y, "mask": Y}}]),
    "autocast": (does(in_bfloat16, a=linear), [XS]),
    "a gradient inside": (op(with_gradients), BOTH),
    "a table by length": (CachesByLength, BOTH),
    "a cached table of a size": (op(lambda x: x * table_of(x.shape[1])), BOTH),
    "unbind of a free size": (op(lambda x: x.unbind(1)), BOTH),
    "a row at a time": (op(lambda x: torch.stack([row * 2 for row in x])), BOTH),
    "a step at a time": (op(lambda x: functools.reduce(lambda h, t: h * 0.5 + t, x.unbind(1))), BOTH),
    "a text of a size": (op(lambda x: x * len(f"{x.shape[1]}")), BOTH),
    "the type of a size": (op(lambda x: x * 2 if isinstance(x.shape[1], int) else x), BOTH),
    "a branch of torch.cond": (op(half), BOTH),
}  # fmt: skip

#: name -> the model, inputs of the capture, the error and what it says.
REFUSED: dict[str, tuple[Callable[[], Any], Any, Any, str]] = {
    "a running mean": (RunningMean, XS, CaptureError, "writes to its buffers mean"),
    "a default that grows": (GrowingDefault, XS, CaptureError, "differently the second time"),
    "noise": (op(lambda x: x + torch.randn_like(x)), XS, LoweringError, "draws random numbers"),
    "noise of a seed": (
        op(lambda x: x + torch.randn(6, generator=torch.Generator().manual_seed(0))), XS, LoweringError,
        "draws random numbers",
    ),
    "dropout always": (op(lambda x: F.dropout(x, 0.5)), XS, LoweringError, "draws random numbers"),
    "a branch on a value": (
        op(lambda x: x * 2 if x.sum() > 0 else x), XS, CaptureError, "data-dependent",
    ),
    "a branch on item()": (
        op(lambda x: x * 2 if x.sum().item() > 0 else x), XS, CaptureError, "data-dependent",
    ),
    "a loop on a value": (op(shrinking), XS, CaptureError, "data-dependent"),
    "a sparse buffer": (Sparse, XS, SourceError, r"w is sparse_coo, .*to_dense"),
    "an array": (op(lambda x: (x * 2).numpy()), XS, CaptureError, "returns arrays of NumPy"),
    "a set": (op(lambda x: (x, {1, 2})), XS, CaptureError, r"the output\[1\] is a builtins.set"),
    "a generator": (op(lambda x: (y for y in [x])), XS, CaptureError, "the output is a builtins.generator"),
    "a deque": (op(lambda x: collections.deque([x])), XS, CaptureError, "the output is a collections.deque"),
    "a dtype": (op(lambda x: (x, x.dtype)), XS, CaptureError, r"the output\[1\] is a torch.dtype"),
    "a module copied inside": (
        does(lambda m, x: copy.deepcopy(m.a)(x), a=linear), XS, CaptureError, "cannot capture",
    ),
    "an enumeration": (EnumDefault, XS | {"colour": Colour.RED}, CaptureError, r"got colour \(Colour\)"),
    "singular values": (op(torch.linalg.svdvals), XS, UnsupportedOps, "svdvals"),
}  # fmt: skip
