# SPDX-License-Identifier: Apache-2.0
"""Runs one sample as PyTorch and as a port, and says what came of it."""

from __future__ import annotations

import dataclasses
import itertools
import linecache
import os
import re
import tempfile
import traceback
import types
from typing import Any

import numpy as np
import torch
from tests.fuzz.sample import Sample

import paritas
from paritas.errors import InputError, ParitasError
from paritas.pytree import describe_output
from paritas.run.torch.float64 import InFloat64
from paritas.verify import compare, whole_model
from paritas.verify.compare import distance
from paritas.verify.tolerance import EXACT

#: From best to worst. "door": the port takes the example and refuses another feed; "failed": the engine did, in words.
OUTCOMES = ("invalid", "agrees", "door", "refused", "unplaced", "failed", "raw", "hung", "wrong")

_serial = itertools.count()
_PLACE = re.compile(r"\.py:\d+")
_OPERATOR = re.compile(r"aten[.:]|torch\.|[\w.]+\(|x\d+|v\d+")


@dataclasses.dataclass
class Verdict:
    """outcome: one of `OUTCOMES`. special: what differs where inputs hold NaN or infinities, which is no fault here."""

    outcome: str
    text: str = ""
    feed: str = ""
    special: str = ""
    froze: bool = False  # the capture kept no size free
    compared: int = 0


def module_of(sample: Sample) -> torch.nn.Module:
    """The sample's module, from a file, since an error has to name its line."""
    path = os.path.join(tempfile.gettempdir(), f"fuzz_{os.getpid()}_{next(_serial)}.py")
    source = sample.source()
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    module = types.ModuleType("fuzzed")
    exec(compile(source, path, "exec"), module.__dict__)  # noqa: S102 - written by our own tables
    return module.M().eval()


def eager(module: torch.nn.Module, feed: dict[str, torch.Tensor]) -> list[np.ndarray]:
    with torch.no_grad():
        flat, _ = describe_output(module(**{name: value.clone() for name, value in feed.items()}))
    return [_numpy(value) for value in flat]


def _numpy(value: torch.Tensor) -> np.ndarray:
    value = value.detach().resolve_conj().resolve_neg()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def judge(sample: Sample, engine: str, mode: str = "graph") -> Verdict:
    feeds = list(sample.feeds())
    try:
        module = module_of(sample)
        eager(module, feeds[0][1])
    except Exception as error:  # noqa: BLE001
        return Verdict("invalid", f"{type(error).__name__}: {error}"[:300])
    try:
        port = paritas.port(module, engine=engine, inputs=dict(feeds[0][1]), mode=mode)
    except ParitasError as error:
        text = str(error)
        placed = _PLACE.search(text) and _OPERATOR.search(text)
        return Verdict("refused" if placed else "unplaced", text[:600], "port")
    except Exception:  # noqa: BLE001
        return Verdict("raw", traceback.format_exc(limit=-4)[-900:], "port")
    verdict = Verdict("agrees", froze=any("all dimensions are fixed" in str(note) for note in port.notes))
    narrowed = any("float64 is computed in float32" in str(note) for note in port.notes)
    double = None
    for label, feed in feeds:
        special = label == "NaN"
        try:
            want = eager(module, feed)
        except Exception:  # noqa: BLE001 - the original refuses these values or sizes
            continue
        try:
            got = [_numpy(value) for value in describe_output(port(**feed))[0]]
        except InputError as error:
            if label == "example" and "32 bits" not in str(error):
                return Verdict("failed", f"its own example: {error}"[:400], label)
            _worse(verdict, "door", str(error)[:300], label)
            continue
        except ParitasError as error:
            if special:
                verdict.special = verdict.special or str(error)[:200]
            else:
                _worse(verdict, "failed", str(error)[:400], label)
            continue
        except Exception:  # noqa: BLE001
            _worse(verdict, "raw", traceback.format_exc(limit=-4)[-900:], label)
            continue
        if not len(sample.outputs) == len(want) == len(got):
            _worse(verdict, "wrong", f"{len(got)} outputs, want {len(want)}", label)
            continue
        for name, w, g in zip(sample.outputs, want, got, strict=True):
            if (fault := _differs(w, g, narrowed)) and double is None:
                double = module_of(sample).double()
            if fault and not special and _excused(w, g, _in_double(double, feed, sample.outputs.index(name))):
                fault = ""
            if fault and not special and _lost_in_a_sum(sample, feed, w, g):
                fault = ""
            if fault and special:
                verdict.special = verdict.special or f"{name}: {fault}"
            elif fault:
                _worse(verdict, "wrong", f"{name}: {fault}", label)
            verdict.compared += w.size
    port.close()
    return verdict


def _worse(verdict: Verdict, outcome: str, text: str, feed: str) -> None:
    if OUTCOMES.index(outcome) > OUTCOMES.index(verdict.outcome):
        verdict.outcome, verdict.text, verdict.feed = outcome, text, feed


def _differs(want: np.ndarray, got: np.ndarray, narrowed: bool) -> str:
    """narrowed: whether the port's notes say that float64 is computed in float32."""
    name = "float32" if narrowed and want.dtype == np.float64 else want.dtype.name
    tolerance = whole_model(name) if want.dtype.kind == "f" else EXACT
    if want.dtype.kind == "c":
        tolerance = whole_model("float32")
    found = compare(want, got, tolerance)
    return "" if found.agrees else str(found)


def _in_double(module: Any, feed: dict[str, torch.Tensor], index: int) -> np.ndarray | None:
    wide = {name: value.double() if value.is_floating_point() else value for name, value in feed.items()}
    try:
        with InFloat64():
            return eager(module, wide)[index]
    except Exception:  # noqa: BLE001 - no such kernel
        return None


def _excused(want: np.ndarray, got: np.ndarray, truth: np.ndarray | None) -> bool:
    """Whether float64 says that the port is as right as PyTorch is, or that PyTorch itself cannot tell."""
    if truth is None or want.shape != got.shape or want.dtype != got.dtype or truth.shape != want.shape:
        return False
    if want.dtype.kind in "biu":
        there = want != got
        return truth.dtype == want.dtype and bool((truth[there] != want[there]).all())
    if truth.dtype.kind != "f" or want.dtype.kind != "f":
        return False
    with np.errstate(over="ignore"):
        rounded = truth.astype(want.dtype)
    if (np.isfinite(rounded) != np.isfinite(want)).any() and _forms(rounded, got):
        return True
    own, ours = distance(truth, want), distance(truth, got)
    # Where PyTorch has lost two digits itself, the same roundings in another order are up to four times as far off.
    most = max(2 * own, 1e-4) if own < 1e-5 else max(4 * own, 1e-4)
    return bool(np.isfinite(ours) and (ours <= most or own > 0.05))


#: Statements that add up.
_ADDING = re.compile(r"\b(sum|mean|cumsum|std|var|norm|matmul|bmm|mm|linear|einsum|conv\w*|avg_pool\w*|kl_div)\(|@")


def _lost_in_a_sum(sample: Sample, feed: dict[str, torch.Tensor], want: np.ndarray, got: np.ndarray) -> bool:
    """Whether floats differ by less than float32 has at the largest number that was added: another order of adding."""
    if want.dtype != np.float32 or got.dtype != np.float32 or want.shape != got.shape:
        return False
    if len(sample.lines) > 3 or not any(_ADDING.search(line.text) for line in sample.lines):
        return False
    largest = max((float(value.double().abs().max()) for value in feed.values() if value.numel()), default=0.0)
    with np.errstate(invalid="ignore"):
        off = np.abs(want.astype(np.float64) - got)
    return bool(np.isfinite(off).all() and off.max() <= largest * 2.0**-22)


def _forms(truth: np.ndarray, got: np.ndarray) -> bool:
    return bool((np.isnan(truth) == np.isnan(got)).all())
