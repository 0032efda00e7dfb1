# SPDX-License-Identifier: Apache-2.0
"""How far a result may lie from what was wanted, and why: no tolerance without its reason."""

from __future__ import annotations

import dataclasses

from paritas.errors import ParitasError


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """One rule for one element: |got - want| <= atol + rtol * |want| + scaled * (typical |want| of the tensor).

    Args:
        rtol: relative to the element.
        atol: absolute.
        because: the reason for which it is what it is.
        scaled: the bound on the figure max|got - want| / mean|want| by which ports are usually reported;
            `compare.typical` says how a few huge elements are kept from widening it.
        words: the rule, where one triple of numbers for all outputs does not say it.

    Raises:
        ValueError: there is no reason, or a bound is negative or not finite.
    """

    rtol: float
    atol: float
    because: str
    scaled: float = 0.0
    words: str = ""

    def __post_init__(self) -> None:
        if not self.because.strip():
            raise ValueError("A tolerance needs its reason: Tolerance(rtol, atol, because='...').")
        for name in ("rtol", "atol", "scaled"):
            # NaN and infinity would let everything pass.
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"Tolerance.{name} must be finite and not negative, not {getattr(self, name)!r}.")

    @property
    def rule(self) -> str:
        if self.words:
            return self.words
        terms = [
            f"{self.atol:.3g}" if self.atol else "",
            f"{self.rtol:.3g}*|want|" if self.rtol else "",
            f"{self.scaled:.3g}*mean|want|" if self.scaled else "",
        ]
        return "|got-want| <= " + (" + ".join(t for t in terms if t) or "0")

    def __str__(self) -> str:
        return f"{self.rule}   ({self.because})"


#: Machine epsilon of every dtype that a port may compute in.
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}

#: Dtypes whose rounding alone exceeds any useful distance to PyTorch's fp32 numbers: judged against float64.
HALF = frozenset({"float16", "bfloat16"})

EXACT = Tolerance(0.0, 0.0, "integers and booleans have no rounding")

#: A half-precision port is as accurate as PyTorch if its error against float64 is at most this many times
#: PyTorch's own at the same dtype.
AS_ACCURATE = 2.0

#: The same for inputs that a search has picked: the largest of a thousand ratios of rounding errors is beyond 2 in
#: honest ports too (a small ResNet in bf16 on OpenVINO: 2.3 after 953 tries), so that only more than this is a fault.
AS_ACCURATE_SEARCHED = 4.0

#: Where PyTorch itself is further than this from float64 (relative to mean|want| + |want|), twice that would
#: let anything pass, so such an output is not judged at all.
TOO_INACCURATE = 0.1

#: Up to here fp32 rounding of the reference may widen the fp32 tolerance; above, the difference stands.
WIDEST_FP32 = 3e-3

_WHOLE_MODEL = {
    "float64": Tolerance(1e-12, 0.0, "float64, whole model: 1e4 roundings of 2e-16", scaled=1e-11),
    "float32": Tolerance(
        1e-5,
        0.0,
        "fp32, whole model: published fp32 ports differ by 5e-6 .. 1.4e-4 of mean|want|; "
        "1e-5 of the element itself is 84 fp32 roundings, for the few elements that are far above the mean",
        scaled=1e-4,
    ),
    "float16": Tolerance(
        2**-8, 0.0, "fp16, inside a model: published fp16 ports differ by 2e-3 .. 9e-2 of mean|want|", scaled=5e-2
    ),
    "bfloat16": Tolerance(
        2**-6, 0.0, "bf16, inside a model: 8 times the rounding of fp16, errors of several layers", scaled=2e-1
    ),
}


def whole_model(precision: str) -> Tolerance:
    """The tolerance of a model's outputs, and of a module's within a free run, at that arithmetic.

    precision: "float64", "float32", "float16" or "bfloat16". Raises `ParitasError` for any other.
    """
    try:
        return _WHOLE_MODEL[precision]
    except KeyError:
        known = ", ".join(_WHOLE_MODEL)
        raise ParitasError(f"There is no tolerance for {precision!r}, only for {known}. Pass tolerance=.") from None


def half_precision(precision: str) -> Tolerance:
    """The rule for outputs in fp16 and bf16, in words: its bound is another one for each output."""
    return Tolerance(
        0.0,
        0.0,
        "at that precision rounding alone exceeds any useful distance to fp32 numbers",
        words=f"|got-float64| <= {AS_ACCURATE:g} * |PyTorch in {precision} - float64|, worst against worst element",
    )


def widened(tolerance: Tolerance, own: float) -> Tolerance:
    """`tolerance`, made to hold where PyTorch's own fp32 rounding, `own`, is coarser than it.

    own: max |fp32 - float64| / (typical |want| + |want|) of one and the same graph. If the port is at most
    twice as far from float64, it is at most three times `own` from PyTorch. Never beyond `WIDEST_FP32`. That is a
    share of the typical value and of the element's own: whichever of the two is narrower is widened.
    """
    bound = 3 * own
    if not min(tolerance.rtol, tolerance.scaled) < bound <= WIDEST_FP32:
        return tolerance
    because = (
        f"PyTorch's own fp32 rounding on this input is {own:.2g} of the values, measured against float64 of the "
        f"same graph; a port as accurate as PyTorch (at most {AS_ACCURATE:g}x its error) is within three times that"
    )
    return Tolerance(max(tolerance.rtol, bound), tolerance.atol, because, scaled=max(tolerance.scaled, bound))
