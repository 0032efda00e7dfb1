# SPDX-License-Identifier: Apache-2.0
"""The one comparison rule. Presence, shape, dtype, NaN layout and infinities come before any number."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from paritas.verify.tolerance import EXACT, Tolerance

CHUNK = 1 << 18  # elements looked at in one go: a few temporaries of 2 MiB, whatever the tensor's size

SENTINEL = 1e30  # "minus infinity" as masks spell it in fp32 and bf16; never part of a typical magnitude
GAP = 8  # octaves without a single element that separate fill values from the rest
SHARE = 1 / 20  # of the elements, at least, that must lie below such a gap to be "the rest"
MEMBERS = 4  # so few elements are no class of their own, however far below the others: three of a state of eight
RESIDUE = 1e-6  # what is this much smaller than the rest is what rounding left of a zero, not the rest
FILL = 1e6  # above this magnitude, a class of its own is fill, however small the others are


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What comparing one array with another found. `agrees` is the verdict; the rest says how and where.

    fault: why no numbers could be compared ("shape", "dtype", "NaN", ...), "" if they were. excess: the worst
    |got-want| / tolerance at one element. error: max|got-want| / mean|want| over the finite elements, the
    figure that ports are usually reported by; where mean|want| is 0 it is 0 if all is equal, else inf.
    mean_rel is the mean of |got-want| / |want| over the elements where want is not 0. elements: how many
    finite values, integers and booleans were compared.
    """

    tolerance: Tolerance
    fault: str = ""
    excess: float = math.inf
    error: float = math.inf
    max_abs: float = math.nan
    mean_abs: float = math.nan
    mean_rel: float = math.nan
    worst: tuple[int, ...] = ()  # index of the element with the largest excess
    want: float = math.nan  # there
    got: float = math.nan
    elements: int = 0

    @property
    def agrees(self) -> bool:
        return not self.fault and self.excess <= 1.0  # NaN <= 1.0 is False: never write `not excess > 1`

    @property
    def needed(self) -> Tolerance | None:
        """The tolerance, of the same proportions, that would have passed; None where none would."""
        if self.fault or not self.excess < math.inf:
            if self.fault or not self.max_abs < math.inf:
                return None
            return Tolerance(0.0, self.max_abs, "what would have passed")
        by = self.excess * (1 + 1e-9)
        t = self.tolerance
        return Tolerance(t.rtol * by, t.atol * by, "what would have passed", scaled=t.scaled * by)

    def __str__(self) -> str:
        if self.fault:
            return self.fault
        where = f" at {list(self.worst)}: want {self.want:.9g}, got {self.got:.9g}" if self.max_abs else ""
        return f"{self.excess:.3g}x tolerance, error {self.error:.2e}{where}"


def compare(
    want: np.ndarray | None, got: np.ndarray | None, tolerance: Tolerance, *, dtype: str | np.dtype | None = None
) -> Comparison:
    """Compare `got` with the reference `want`: floats within `tolerance`, integers and booleans exactly.

    Any shape, and any bool, integer, float or complex dtype. dtype: what `got` must have if that is not
    want's (a float64 reference for fp32 results). Nothing is broadcast, cast or cleaned first; no error is
    raised for anything that an engine may return: what cannot be compared is a fault.
    """
    fault = _form_fault(want, got, dtype)
    if fault:
        return Comparison(tolerance, fault)
    assert want is not None and got is not None
    if np.iscomplexobj(want):
        want, got = _parts(want), _parts(got)
    if want.dtype.kind in "biu":
        return _compare_exactly(want, got)
    return _compare_floats(want, got, tolerance)


def _form_fault(want: np.ndarray | None, got: np.ndarray | None, dtype: str | np.dtype | None) -> str:
    if want is None or got is None:
        return "missing on both sides" if want is got else f"missing {'in the original' if want is None else 'here'}"
    for side, value in (("want", want), ("got", got)):
        if not isinstance(value, np.ndarray | np.generic):
            return f"not an array: {side} is {type(value).__name__}"
    if want.shape != got.shape:
        return f"shape: want {list(want.shape)}, got {list(got.shape)}"
    expected = want.dtype if dtype is None else np.dtype(dtype)
    if got.dtype != expected:
        return f"dtype: want {expected}, got {got.dtype}"
    kinds = {_kind(want.dtype), _kind(got.dtype)}
    if len(kinds) > 1 or kinds == {""}:
        return f"dtype: {want.dtype} and {got.dtype} cannot be compared"
    return ""


def _kind(dtype: np.dtype) -> str:
    return {"b": "bool", "i": "integer", "u": "integer", "f": "float", "c": "complex"}.get(dtype.kind, "")


def _parts(value: np.ndarray) -> np.ndarray:
    """Complex [...] as real [..., 2], so that a NaN or an infinity in either part is seen."""
    return np.stack([value.real, value.imag], axis=-1)


def _chunks(want: np.ndarray, got: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    flat_want, flat_got = want.reshape(-1), got.reshape(-1)
    for start in range(0, flat_want.size, CHUNK):
        yield start, flat_want[start : start + CHUNK], flat_got[start : start + CHUNK]


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape)) if shape else ()


def _compare_exactly(want: np.ndarray, got: np.ndarray) -> Comparison:
    unequal, largest, total, size, worst, relative, nonzero = 0, 0.0, 0.0, 0.0, 0, 0.0, 0
    for start, w, g in _chunks(want, got):
        different = w != g
        # Python's float64 holds every difference that matters here; equality was decided on the integers.
        magnitude = np.abs(w.astype(np.float64))
        size += float(magnitude.sum())
        nonzero += int(np.count_nonzero(magnitude))
        if not different.any():
            continue
        unequal += int(different.sum())
        distance = np.where(different, np.maximum(np.abs(g.astype(np.float64) - w.astype(np.float64)), 1.0), 0.0)
        total += float(distance.sum())
        relative += float((distance[magnitude > 0] / magnitude[magnitude > 0]).sum())
        at = int(distance.argmax())
        if distance[at] > largest:
            largest, worst = float(distance[at]), start + at
    index = _index(worst, want.shape) if want.size else ()
    return Comparison(
        EXACT,
        excess=math.inf if unequal else 0.0,
        error=_figure(largest, size, want.size),
        max_abs=largest,
        mean_abs=total / want.size if want.size else 0.0,
        mean_rel=relative / nonzero if nonzero else 0.0,
        worst=index,
        want=float(want[index]) if want.size else math.nan,
        got=float(got[index]) if want.size else math.nan,
        elements=want.size,
    )


def _compare_floats(want: np.ndarray, got: np.ndarray, tolerance: Tolerance) -> Comparison:
    magnitudes = _Magnitudes()
    for start, w, g in _chunks(want, got):
        fault = _special_fault(want.shape, start, w, g)
        if fault:
            return Comparison(tolerance, fault)
        magnitudes.add(w)
    base = tolerance.atol + tolerance.scaled * magnitudes.typical()

    excess, worst, largest, total, relative, nonzero = 0.0, 0, 0.0, 0.0, 0.0, 0
    for start, w, g in _chunks(want, got):
        keep = np.isfinite(w)
        wide = w.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            distance = np.abs(g.astype(np.float64) - wide)
            distance[~keep] = 0.0  # equal by now: same NaN, same infinity
            np.abs(wide, out=wide)
            wide[~keep] = 0.0
            allowed = np.minimum(base + tolerance.rtol * wide, np.finfo(np.float64).max)  # inf would pass anything
            ratio = distance / allowed  # 0 allowed: inf where they differ, NaN where they are equal
            ratio[np.isnan(ratio)] = math.inf
            ratio[distance == 0] = 0.0
            there = wide > 0
            relative += float((distance[there] / wide[there]).sum())
        nonzero += int(there.sum())
        total += float(distance.sum())
        largest = max(largest, float(distance.max()))
        at = int(ratio.argmax())
        if ratio[at] > excess:
            excess, worst = float(ratio[at]), start + at
    index = _index(worst, want.shape) if want.size else ()
    count = magnitudes.finite
    return Comparison(
        tolerance,
        excess=excess,
        error=_figure(largest, magnitudes.total, count),
        max_abs=largest,
        mean_abs=total / count if count else 0.0,
        mean_rel=relative / nonzero if nonzero else 0.0,
        worst=index,
        want=float(want[index]) if want.size else math.nan,
        got=float(got[index]) if want.size else math.nan,
        elements=count,
    )


def _figure(largest: float, total: float, count: int) -> float:
    """max|got-want| / mean|want|."""
    if not largest:
        return 0.0
    return largest / (total / count) if total else math.inf


def _special_fault(shape: tuple[int, ...], start: int, w: np.ndarray, g: np.ndarray) -> str:
    """NaN must be where NaN is wanted, and infinities with their sign."""
    if np.isfinite(w).all() and np.isfinite(g).all():
        return ""
    nan_w, nan_g = np.isnan(w), np.isnan(g)
    for name, mask in (
        ("NaN where the original has none", nan_g & ~nan_w),
        ("no NaN where the original has one", nan_w & ~nan_g),
    ):
        if mask.any():
            return f"NaN: {name}, first at {list(_index(start + int(mask.argmax()), shape))}"
    inf = (np.isinf(w) | np.isinf(g)) & (w != g) & ~nan_w
    if inf.any():
        at = int(inf.argmax())
        return f"infinity: want {float(w[at])}, got {float(g[at])}, first at {list(_index(start + at, shape))}"
    return ""


class _Magnitudes:
    """Count and sum of |want| by octave, filled chunk by chunk; what is needed to tell fill values from the rest."""

    _OFFSET = 1080  # frexp's exponents of float64 go from -1073 to 1024

    def __init__(self) -> None:
        self.finite, self.zeros, self.total = 0, 0, 0.0
        self._count = np.zeros(2200, np.int64)
        self._sum = np.zeros(2200)

    def add(self, want: np.ndarray) -> None:
        values = np.abs(want[np.isfinite(want)].astype(np.float64))
        self.finite += values.size
        with np.errstate(over="ignore"):
            self.total += float(values.sum())
        values = values[values > 0]
        self.zeros = self.finite - int(self._count.sum()) - values.size
        octave = np.frexp(values)[1] + self._OFFSET
        self._count += np.bincount(octave, minlength=2200)
        with np.errstate(over="ignore"):
            self._sum += np.bincount(octave, weights=values, minlength=2200)

    def typical(self) -> float:
        """mean|want|, of the elements that are not fill values.

        Masks fill with -1e4, -1e9 or the dtype's minimum. One such element in a hundred lifts the mean so far
        that any error in the others would pass. Fill is what lies beyond a gap of `GAP` empty octaves with at
        least `SHARE` of the elements below it, and everything beyond `SENTINEL`, unless nothing else is there.
        """
        occupied = np.flatnonzero(self._count)
        if not occupied.size:
            return 0.0
        limit = int(np.frexp(SENTINEL)[1]) + self._OFFSET
        below = occupied[occupied < limit]
        if not below.size:
            below = occupied
        steps = np.diff(below)
        for i in np.flatnonzero(steps > GAP):
            low, high = below[: i + 1], below[i + 1 :]
            if self._count[low].sum() < SHARE * self._count[below].sum():
                continue
            rest = self._mean(low)
            fill = self._sum[high].sum() / self._count[high].sum()
            if (rest >= RESIDUE * fill and self._count[low].sum() >= MEMBERS) or fill >= FILL:
                return rest
        return self._mean(below)

    def _mean(self, octaves: np.ndarray) -> float:
        with np.errstate(over="ignore"):
            mean = float(self._sum[octaves].sum() / (self._count[octaves].sum() + self.zeros))
        return mean if mean < math.inf else 0.0  # an infinite scale would let everything pass


def typical(want: np.ndarray) -> float:
    """The magnitude that `Tolerance.scaled` is a fraction of: mean|want| without fill values, 0.0 if all is zero."""
    magnitudes = _Magnitudes()
    for _, w, _ in _chunks(want, want):
        magnitudes.add(w)
    return magnitudes.typical()


#: Measures instead of judging: `compare(truth, got, RELATIVE).excess` is max|got-want| / (typical|want| + |want|).
RELATIVE = Tolerance(1.0, 0.0, "a measure, not a bound", scaled=1.0)


def distance(truth: np.ndarray, got: np.ndarray) -> float:
    """How far floats are from float64 truth, relative to the tensor's typical magnitude plus the element's own.

    max |got - truth| / (typical |truth| + |truth|); inf where the two cannot be compared.
    """
    return compare(truth, got, RELATIVE, dtype=got.dtype if isinstance(got, np.ndarray) else None).excess
