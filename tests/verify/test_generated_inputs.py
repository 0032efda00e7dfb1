# SPDX-License-Identifier: Apache-2.0
"""Generated inputs: deterministic, consistent across inputs, within limits, and padded in every way."""

from __future__ import annotations

import numpy as np
import pytest

from paritas.errors import InputError
from paritas.program import TensorSpec
from paritas.verify.inputs import generate, is_attention_mask, symbols

BERT = (
    TensorSpec("input_ids", "int64", ("s0", "s1"), high=100),
    TensorSpec("attention_mask", "int64", ("s0", "s1")),
    TensorSpec("token_type_ids", "int64", ("s0", "s1"), high=2),
)


def test_the_same_seed_gives_the_same_cases_and_another_gives_others():
    one, same, other = generate(BERT, seed=1), generate(BERT, seed=1), generate(BERT, seed=2)
    for a, b in zip(one, same, strict=True):
        assert a.name == b.name and all(np.array_equal(a.feed[k], b.feed[k]) for k in a.feed)
    assert any(
        not np.array_equal(a.feed["input_ids"], b.feed["input_ids"]) for a, b in zip(one, other, strict=True)
    )


def test_shapes_vary_and_equal_symbols_are_equal_sizes():
    cases = generate(BERT)
    assert len({case.name for case in cases}) == len(cases)
    shapes = set()
    for case in cases:
        assert list(case.feed) == [spec.name for spec in BERT]
        assert len({value.shape for value in case.feed.values()}) == 1, str(case)
        shapes.add(case.feed["input_ids"].shape)
    assert {s[0] for s in shapes} >= {1, 2, 3, 4} and any(s[1] > 30 for s in shapes)
    assert any(s[0] % 2 and s[1] % 2 for s in shapes)


def test_ids_stay_below_the_vocabulary_and_touch_both_ends():
    for case in generate(BERT):
        ids = case.feed["input_ids"]
        assert ids.dtype == np.int64 and ids.min() == 0 and ids.max() == 99


def test_padding_comes_from_both_sides_with_one_visible_token_and_one_masked_row():
    masks = {case.name: case.feed["attention_mask"] for case in generate(BERT)}
    assert masks["batch 1"].all() and masks["longer"].all()
    right, left = masks["right padding"], masks["left padding"]
    assert right[0].all() and left[0].all()
    assert (np.diff(right, axis=1) <= 0).all() and (np.diff(left, axis=1) >= 0).all()
    assert right[-1].tolist() == [1] + [0] * 8 and left[-1].tolist() == [0] * 8 + [1]
    assert (right.sum(1) >= 1).all() and (left.sum(1) >= 1).all()
    assert masks["one visible token"].sum(1).tolist() == [8, 1]
    assert masks["a row fully masked"].sum(1).tolist() == [8, 0]


def test_only_the_fully_masked_case_is_an_edge():
    edges = [case for case in generate(BERT) if case.edge]
    assert [case.name for case in edges] == ["a row fully masked"] and "(edge)" in str(edges[0])


def test_limits_hold_and_shapes_that_they_make_equal_appear_once():
    for case in generate(BERT, limits={"s1": (2, 7)}):
        assert 2 <= case.feed["input_ids"].shape[1] <= 7
    fixed = generate(BERT[:1], limits={"s0": (4, 4), "s1": (5, 5)})
    assert [case.feed["input_ids"].shape for case in fixed] == [(4, 5)]
    assert [case.feed["x"].shape for case in generate((TensorSpec("x", "float32", (2, 3)),))] == [(2, 3)]


def test_expressions_of_symbols_are_evaluated():
    specs = (
        TensorSpec("x", "float32", ("s0", "s1")),
        TensorSpec("y", "float32", ("s0", "2*s1 + 1", "s0*s1", "Max(4, s1//2)", 6)),
    )
    for case in generate(specs):
        b, n = case.feed["x"].shape
        assert case.feed["y"].shape == (b, 2 * n + 1, b * n, max(4, n // 2), 6)
    assert symbols(specs) == {"s0": True, "s1": False}


@pytest.mark.parametrize("dim", ["s0 +", "__import__('os')", "s0.real", "[s0]"])
def test_what_is_no_size_is_refused(dim):
    with pytest.raises(InputError, match="Input x: float32"):
        generate((TensorSpec("x", "float32", (dim,)),))


def test_dtypes_and_special_inputs():
    specs = (
        TensorSpec("pixel_values", "float32", ("s0", 3, 8, 8)),
        TensorSpec("bf", "bfloat16", ("s0", 4)),
        TensorSpec("half", "float16", ("s0", 4)),
        TensorSpec("attention_mask", "bool", ("s0", "s1")),
        TensorSpec("decoder_attention_mask", "int64", ("s0", "s2")),
        TensorSpec("position_ids", "int64", ("s0", "s1")),
        TensorSpec("scalar", "int64", ()),
    )
    assert [s.name for s in specs if is_attention_mask(s)] == ["attention_mask", "decoder_attention_mask"]
    for case in generate(specs):
        feed = case.feed
        assert feed["pixel_values"].dtype == np.float32 and feed["half"].dtype == np.float16
        assert feed["bf"].dtype == np.float32 and not (feed["bf"].view(np.uint32) & 0xFFFF).any()
        assert feed["attention_mask"].dtype == bool and feed["decoder_attention_mask"].dtype == np.int64
        assert (np.diff(feed["position_ids"], axis=1) == 1).all()
        assert feed["scalar"].shape == () and all(value.flags.c_contiguous for value in feed.values())
        if case.edge:
            assert not feed["decoder_attention_mask"][-1].any() and not feed["attention_mask"][-1].any()
