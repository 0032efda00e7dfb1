# SPDX-License-Identifier: Apache-2.0
"""PyTorch's own list of modules, `module_db`: each class as torch tests it, ported as a user ports it."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import random
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from gaps import FAILS, PASSES, REFUSED, WRONG, ModuleGap
from samples import testing
from torch.utils import _pytree as pytree
from under_test import UnderTest

import paritas
from paritas.errors import ParitasError
from paritas.verify.compare import compare
from paritas.verify.tolerance import EXACT, Tolerance

LAYERS = Tolerance(1e-5, 1e-6, "a few layers: sums of products, and norms, in another order", scaled=1e-5)


#: Their samples in float32 have random numbers in float64, which torch itself refuses.
UNFIT = ("FractionalMaxPool",)


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """A module in eval mode, and one call of it."""

    name: str  # its class
    number: int  # among the samples of the class
    module: torch.nn.Module
    args: tuple
    kwargs: Mapping[str, Any]
    about: str

    def __str__(self) -> str:
        return f"{self.name}[{self.number}]({self.about})"

    @property
    def arguments(self) -> dict[str, Any]:
        """By name of forward's parameters; what is None is left out."""
        bound = inspect.signature(self.module.forward).bind(*self.args, **self.kwargs)
        return {name: value for name, value in bound.arguments.items() if value is not None}

    def want(self) -> list[torch.Tensor]:
        """The tensors that it returns."""
        with torch.no_grad():
            out = self.module(*copy.deepcopy(self.args), **copy.deepcopy(dict(self.kwargs)))
        return [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, torch.Tensor)]


@dataclasses.dataclass(frozen=True)
class Verdict:
    sample: Sample
    kind: str
    words: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.sample}: {self.words}"


def samples(each: int | None = None) -> Iterator[Sample]:
    """Every class of `module_db`, float32 and in eval mode. each: only so many of a class, always the same."""
    for info in testing("common_modules").module_db:
        name = info.module_cls.__name__
        torch.manual_seed(0)
        made = list(
            info.module_inputs_func(info, device="cpu", dtype=torch.float32, requires_grad=False, training=False)
        )
        drawn = range(len(made)) if not each or len(made) <= each else random.Random(0).sample(range(len(made)), each)
        for number in sorted(drawn):
            given = made[number]
            construction, call = given.constructor_input, given.forward_input
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module = info.module_cls(*construction.args, **construction.kwargs).eval()
            told = [
                *map(_short, construction.args),
                *(f"{k}={_short(v)}" for k, v in construction.kwargs.items()),
            ]
            told += ["<-", *(_short(value) for value in (*call.args, *call.kwargs.values()))]
            sample = Sample(name, number, module, call.args, call.kwargs, " ".join(told))
            if not name.startswith(UNFIT):
                yield sample


def _short(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype}{list(value.shape)}".removeprefix("torch.").replace(" ", "")
    if isinstance(value, (tuple, list)):
        return f"({','.join(map(_short, value))})"
    return getattr(value, "__name__", str(value)).replace(" ", "")


def verdict(sample: Sample, engine: str, mode: str = "graph") -> Verdict:
    """What becomes of the sample's call."""
    wants = sample.want()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            port = paritas.port(sample.module, engine=engine, inputs=copy.deepcopy(sample.arguments), mode=mode)
        with contextlib.closing(port):
            out = port(**copy.deepcopy(_tensors(sample.arguments)))
    except ParitasError as error:
        return Verdict(sample, REFUSED, f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 - nothing but our own errors may come out
        return Verdict(sample, FAILS, f"{type(error).__name__}: {error}")
    gots = [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, torch.Tensor)]
    if len(gots) != len(wants):
        return Verdict(sample, WRONG, f"{len(gots)} outputs, want {len(wants)}")
    differ = [
        str(found)
        for want, got in zip(wants, gots, strict=True)
        if not (found := compare(*map(_array, (want, got)), LAYERS if want.is_floating_point() else EXACT)).agrees
    ]
    return Verdict(sample, WRONG if differ else PASSES, "; ".join(differ))


def _tensors(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that hold tensors; the others have been fixed by the capture."""
    return {
        name: value
        for name, value in arguments.items()
        if any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(value))
    }


def _array(value: torch.Tensor) -> np.ndarray:
    return value.detach().resolve_conj().resolve_neg().numpy()


#: At most so many samples of one class.
MANY = 24


def sweep(engine: str, each: int = MANY) -> Iterator[Verdict]:
    """The verdict on every sample."""
    for sample in samples(each):
        yield verdict(sample, engine)


def gap_of(found: Verdict, engine: UnderTest) -> ModuleGap | None:
    return next((gap for gap in engine.module_gaps if gap.covers(str(found.sample))), None)


def complaints(found: Iterable[Verdict], engine: UnderTest) -> list[str]:
    """What the table of gaps does not know, and what it knows no longer."""
    told = []
    for one in found:
        gap = gap_of(one, engine)
        if gap is None and one.kind != PASSES:
            told.append(str(one))
        elif gap is not None and one.kind != gap.kind:
            told.append(f"{one}; the gaps say {gap.kind}: {gap.reason}")
    return told
