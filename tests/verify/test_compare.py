# SPDX-License-Identifier: Apache-2.0
"""The comparison's numbers: figures, the worst element, what would have passed, memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from paritas.errors import ParitasError
from paritas.verify.compare import CHUNK, compare, distance, typical
from paritas.verify.tolerance import WIDEST_FP32, Tolerance, whole_model, widened
from work import memory_of

TIGHT = Tolerance(1e-5, 1e-6, "a test")
floats = arrays.arrays(
    np.float32, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0), elements=st.floats(width=32)
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(floats)
def test_everything_equals_itself_nan_and_infinities_included(x):
    result = compare(x, x.copy(), TIGHT)
    assert result.agrees and result.error == result.max_abs == result.excess == 0


@settings(max_examples=60, deadline=None, derandomize=True)
@given(floats, st.randoms(use_true_random=False))
def test_one_changed_element_is_the_worst_one_and_needed_would_pass(x, random):
    finite = np.argwhere(np.isfinite(x) & (np.abs(x) < 1e30))
    if not len(finite):
        return
    at = tuple(int(i) for i in random.choice(list(finite)))
    y = x.copy()
    y[at] += np.copysign(1 + abs(x[at]) / 2, x[at])
    result = compare(x, y, TIGHT)
    assert not result.agrees
    assert result.worst == at and result.got == y[at] and result.want == x[at]
    assert result.needed is not None and compare(x, y, result.needed).agrees


@settings(max_examples=40, deadline=None, derandomize=True)
@given(arrays.arrays(np.int64, arrays.array_shapes(max_dims=2), elements=st.integers(-(2**63), 2**63 - 1)))
def test_integers_are_exact_to_the_last_bit(x):
    assert compare(x, x.copy(), TIGHT).agrees
    y = x.copy()
    y.flat[0] ^= 1  # 2**62 and 2**62 + 1 are the same float64
    result = compare(x, y, TIGHT)
    assert not result.agrees and result.excess == math.inf and result.max_abs >= 1
    assert not result.worst or result.worst == (0,) * x.ndim


def test_figures_are_those_of_the_definition():
    want = np.array([[1.0, -2.0], [0.0, 5.0]], np.float32)
    got = want + np.array([[0.5, 0.0], [0.25, 0.0]], np.float32)
    result = compare(want, got, Tolerance(0.0, 0.1, "a test"))
    assert result.max_abs == 0.5 and result.mean_abs == 0.1875 and result.error == 0.5 / 2.0
    assert result.mean_rel == pytest.approx(0.5 / 3)  # over the three elements that are not 0
    assert result.worst == (0, 0) and result.excess == pytest.approx(5) and result.elements == 4


def test_a_reference_of_zeros_has_no_relative_error_but_must_be_met():
    zeros = np.zeros(4, np.float32)
    scaled = whole_model("float32")
    assert compare(zeros, zeros, scaled).error == 0
    off = compare(zeros, zeros + np.float32(1e-9), scaled)
    assert off.error == math.inf and off.excess == math.inf and not off.agrees


def test_empty_and_zero_dimensional_arrays():
    assert compare(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), TIGHT).elements == 0
    assert compare(np.float32(1), np.float32(1), TIGHT).agrees
    assert not compare(np.array(1.0), np.array(2.0), TIGHT).agrees


@pytest.mark.parametrize("dtype", [np.complex64, np.float16, np.float64])
def test_other_float_dtypes(dtype):
    x = np.arange(4).astype(dtype)
    assert compare(x, x.copy(), TIGHT).agrees
    y = x.copy()
    y[3] = y[3] * 1.01
    result = compare(x, y, TIGHT)
    assert not result.agrees and result.worst[0] == 3


def test_non_contiguous_arrays_and_the_last_chunk():
    x = np.random.default_rng(0).standard_normal((3, CHUNK)).astype(np.float32).T
    y = x.copy()
    y[-1, -1] += 1
    assert compare(x, y, TIGHT).worst == (CHUNK - 1, 2)


def test_memory_does_not_grow_with_the_tensor():
    x = np.random.default_rng(0).standard_normal(8 * CHUNK).astype(np.float32)
    y = x.copy()
    assert (
        memory_of(compare, x, y, TIGHT) < 16 * CHUNK * 8
    )  # one float64 copy of x would be half of this, and three are needed


def test_typical_magnitude_is_the_mean_where_nothing_is_filled():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(10_000).astype(np.float32)
    gelu = np.where(x < 0, x * 1e-7, x)  # many elements next to nothing, without a gap in between or with one
    for values in (x, x**3, np.exp(3 * x), np.maximum(x, 0)):
        assert typical(values) == pytest.approx(float(np.abs(values).astype(np.float64).mean()), rel=1e-6)
    assert typical(gelu) == pytest.approx(float(np.abs(gelu).mean()), rel=1e-5)
    rotation = np.where(x < 0, np.float32(-4e-8), np.float32(1))  # what is left of cos(pi/2)
    assert typical(rotation) == pytest.approx(float(np.abs(rotation).mean()), rel=1e-5)

    state = np.array([2e-9, 2e-7, 1e-5, 0.016, 0.44, 0.46, 0.62, 0.76], np.float32)  # what an LSTM ends with
    assert typical(state) == pytest.approx(float(state.mean()), rel=1e-5)


def test_what_a_mask_fills_is_no_part_of_the_typical_magnitude():
    scores = np.linspace(0.1, 2, 16, dtype=np.float32).reshape(4, 4)
    seen = np.tri(4, dtype=bool)
    for filled in (-1e4, -1e9, float(np.finfo(np.float32).min)):
        masked = np.where(seen, scores, scores + np.float32(filled))
        assert typical(masked) == pytest.approx(float(scores[seen].mean()), rel=1e-5)


def test_a_tolerance_needs_its_reason_and_finite_bounds():
    with pytest.raises(ValueError, match="needs its reason"):
        Tolerance(0.0, 0.0, " ")
    for bound in (math.nan, math.inf, -1.0):
        with pytest.raises(ValueError, match="finite and not negative"):
            Tolerance(bound, 0.0, "a test")
    with pytest.raises(ParitasError, match="no tolerance for 'int8'"):
        whole_model("int8")
    assert str(whole_model("float32")).startswith("|got-want| <= 1e-05*|want| + 0.0001*mean|want|   (fp32, whole model")


def test_the_tolerance_widens_with_pytorchs_rounding_but_only_so_far():
    base = whole_model("float32")
    assert widened(base, 1e-7) is base
    assert widened(base, 5e-4).scaled == pytest.approx(1.5e-3)
    assert "PyTorch's own fp32 rounding" in widened(base, 5e-4).because
    assert widened(base, WIDEST_FP32) is base
    assert widened(base, math.nan) is base and widened(base, math.inf) is base


def test_distance_measures_against_float64():
    truth = np.array([1.0, 1.0, 1000.0])
    assert distance(truth, truth.astype(np.float32)) == 0
    assert distance(truth, np.array([1, 1, 1001], np.float32)) < 1e-3  # 1 of 1000, not 1 of the mean
    assert distance(truth, np.array([1, 1], np.float32)) == math.inf
