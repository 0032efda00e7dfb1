# SPDX-License-Identifier: Apache-2.0
"""Two runs of a pipeline compared: the latents after each step, and what comes out, pictures in levels of 8 bits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from paritas.diffusers.runs import Run
from paritas.run.engine import about
from paritas.run.session import runs_on
from paritas.verify import Environment, OutputParity, ParityReport, Tolerance, compare
from paritas.verify.alike import alike
from paritas.verify.by_truth import judge_by_truth
from paritas.verify.compare import distance
from paritas.verify.report.histogram import count_errors
from paritas.verify.report.rows import PictureCost
from paritas.verify.tolerance import half_precision

if TYPE_CHECKING:
    from paritas.pipeline import Port

#: How far a number may be from PyTorch's, of values up to 1, and in proportion of larger ones; and a level of 8 bits.
LATENTS, LEVELS = 1e-4, 1

_BECAUSE = "a run adds up what each step rounds, and a picture of 8 bits may round to the level beside"

RULE = Tolerance(
    0.0,
    LATENTS,
    _BECAUSE,
    words=f"numbers: |got-want| <= {LATENTS:g} * max(1, max|want|); pictures of 8 bits: {LEVELS} level",
)

#: What rows of latents are called, before the number of their step.
_STEP = "latents after step "

#: The one case: a pipeline is run once.
CASE = "the same call and seed"


def compared(
    want: Run,
    got: Run,
    ports: Sequence[Port],
    *,
    fault: str = "",
    rounded: str = "",
    subject: str = "",
    notes: Sequence[str] = (),
    again: str = "",
    truth: Run | None = None,
    yardstick: Run | None = None,
    half: str = "",
) -> ParityReport:
    """The report of a run. fault: why there is none on the engines. rounded: which networks are others on purpose.

    half: a precision that rounds more than the bar for float32 allows, "bfloat16": the run is then held against
    `truth`, whose networks computed in float64, as closely as PyTorch's in that precision is near to it, `yardstick`.
    """
    rows: list[OutputParity] = []
    for number, one in enumerate(want.latents, 1):
        rows.append(_row(f"{_STEP}{number}", one, _at(got.latents, number - 1), LATENTS * _size(one), fault))
    if len(got.latents) > len(want.latents):
        words = f"{len(got.latents)} steps, and PyTorch makes {len(want.latents)}"
        rows.append(OutputParity(CASE, "latents", fault=words))
    pairs = {name: (value, got.outputs.get(name)) for name, value in want.outputs.items()}
    cost = None
    for name, (value, other) in pairs.items():
        allowed = LATENTS * _size(value)
        if is_picture(value):
            cost = cost or cost_of(value, other, rounded)
            value, other, allowed = levels(value), None if other is None else levels(other), float(LEVELS)
        rows.append(_row(name, value, other, allowed, fault))
    if truth is not None and yardstick is not None and half:
        rows = judge_by_truth([_by_truth(row, truth, yardstick, got) for row in rows], half, {})
    engines = list(dict.fromkeys(port.manifest.engine for port in ports))
    environment = Environment.here(
        " and ".join(engines) or "no engine",
        package=about(engines[0]).package if len(engines) == 1 else "",
        dtype=" and ".join(dict.fromkeys(port.manifest.dtype for port in ports)),
        device=" and ".join(dict.fromkeys(runs_on(port.session) for port in ports)) or "cpu",
    )
    precision = " and ".join(dict.fromkeys(port.session.precision for port in ports))
    shapes = ", ".join(f"{name}[{', '.join(map(str, value.shape))}]" for name, value in want.outputs.items())
    return ParityReport(
        environment=dataclasses.replace(environment, precision=precision),
        tolerance=half_precision(half) if half and truth is not None else RULE,
        outputs=tuple(rows),
        cases=(f"{CASE}: {shapes}",),
        subject=subject,
        notes=tuple(notes),
        picture=cost,
        again=again,
    )


def _by_truth(row: OutputParity, truth: Run, yardstick: Run, got: Run) -> OutputParity:
    """A row with how far PyTorch in the same precision, and the engines, are from float64."""
    value, theirs, ours = (_named(one, row.output) for one in (truth, yardstick, got))
    if row.fault or value is None or theirs is None or ours is None:
        return row
    return dataclasses.replace(row, torch_error=distance(value, theirs), port_error=distance(value, ours))


def _named(run: Run, name: str) -> np.ndarray | None:
    """An output of a run as numbers, or what its latents were, by the name of their row."""
    found = run.outputs.get(name)
    if found is None and name.startswith(_STEP):
        found = _at(run.latents, int(name.removeprefix(_STEP)) - 1)
    if found is None:
        return None
    return np.asarray(found, np.float32 if found.dtype.kind in "biu" else found.dtype)


def _at(values: Sequence[Any], index: int) -> Any:
    return values[index] if index < len(values) else None


def _size(value: np.ndarray) -> float:
    """The largest number, and at least 1."""
    wide = np.abs(value.astype(np.float64))
    return max(1.0, float(wide[np.isfinite(wide)].max(initial=0)))


def _row(name: str, want: np.ndarray, got: np.ndarray | None, allowed: float, fault: str) -> OutputParity:
    if got is None and fault:
        return OutputParity(CASE, name, fault=fault)
    result = compare(want, got, Tolerance(0.0, allowed, _BECAUSE))
    return OutputParity(
        CASE,
        name,
        excess=result.excess,
        error=math.inf if result.fault else result.error,
        fault=result.fault,
        max_abs=result.max_abs,
        mean_abs=result.mean_abs,
        mean_rel=result.mean_rel,
        worst=result.worst,
        want=result.want,
        got=result.got,
        elements=result.elements,
        rule=result.tolerance.rule,
        needed="" if result.needed is None else result.needed.rule,
        histogram=count_errors(want, got),
        **({} if result.fault else alike(name, want, got)),
    )


def is_picture(value: np.ndarray) -> bool:
    """Whether it is one of 8 bits, or of numbers from 0 to 1 with colours in the last place, as diffusers has them."""
    if value.ndim < 3 or value.shape[-1] not in (1, 3, 4):
        return False
    if value.dtype == np.uint8:
        return True
    return value.dtype.kind == "f" and bool(
        np.isfinite(value).all() and value.min(initial=0) >= 0 and value.max(initial=1) <= 1
    )


def levels(value: np.ndarray) -> np.ndarray:
    """A picture in levels of 8 bits, as numbers whose differences are numbers."""
    if value.dtype == np.uint8:
        return value.astype(np.float64)
    return np.asarray(np.round(np.nan_to_num(value.astype(np.float64)) * 255))


def cost_of(want: np.ndarray, got: np.ndarray | None, because: str = "") -> PictureCost | None:
    """What the picture has lost; None where there is none, or one of another size."""
    if got is None or got.shape != want.shape:
        return None
    off = np.abs(levels(got) - levels(want))
    mean = float(np.square(off).mean())
    return PictureCost(
        levels=int(off.max(initial=0)),
        psnr=10 * math.log10(255**2 / mean) if mean else math.inf,
        changed=float((off > 0).mean()),
        because=because,
    )
