# SPDX-License-Identifier: Apache-2.0
"""Generated inputs: deterministic, consistent across inputs, within limits, and padded in every way."""

from __future__ import annotations

import numpy as np
import pytest

from paritas.errors import InputError
from paritas.program import TensorSpec
from paritas.verify.inputs.edge_values import BLACK, LARGE, WHITE, without_denormals
from paritas.verify.inputs.generate import generate, is_attention_mask, symbols
from paritas.verify.inputs.sizes import Ways

BERT = (
    TensorSpec("input_ids", "int64", ("s0", "s1"), high=100),
    TensorSpec("attention_mask", "int64", ("s0", "s1")),
    TensorSpec("token_type_ids", "int64", ("s0", "s1"), high=2),
)


def test_the_same_seed_gives_the_same_cases_and_another_gives_others():
    one, same, other = generate(BERT, seed=1), generate(BERT, seed=1), generate(BERT, seed=2)
    for a, b in zip(one, same, strict=True):
        assert a.name == b.name and all(np.array_equal(a.feed[k], b.feed[k]) for k in a.feed)
    assert any(not np.array_equal(a.feed["input_ids"], b.feed["input_ids"]) for a, b in zip(one, other, strict=True))


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
    assert masks["one visible token"].sum(1).tolist() == [7, 7, 1]
    assert masks["a row fully masked"].sum(1).tolist() == [7, 7, 0]


def test_only_the_fully_masked_case_is_an_edge():
    edges = [case for case in generate(BERT) if case.edge]
    assert [case.name for case in edges] == ["a row fully masked"] and "(edge)" in str(edges[0])


def test_masks_and_corner_values_have_the_shapes_of_other_cases():
    """Each shape is compiled anew in MindSpore's Graph mode, which is what verifying there waits for."""
    ways = Ways(example={"s0": 2, "s1": 12})
    shapes = [case.feed["input_ids"].shape for case in generate(BERT, ways=ways)]
    assert sorted(set(shapes)) == [(1, 8), (2, 1), (2, 33), (3, 7), (4, 9)]


def test_a_case_gives_way_to_sizes_nearer_to_the_examples():
    """A mask with a length of its own, as long as the frames in the example; and a table for both lengths together."""
    specs = (
        TensorSpec("frames", "float32", ("s0", "s1", 8)),
        TensorSpec("attention_mask", "int64", ("s0", "s2")),
        TensorSpec("past", "float32", ("s0", "s3", 8)),
    )
    ways = Ways(example={"s0": 2, "s1": 12, "s2": 12, "s3": 4})
    cases = {case.name: case for case in generate(specs, ways=ways)}
    shapes = {name: [tuple(len(x[0]) for x in c.feed.values()) for c in case.otherwise] for name, case in cases.items()}
    assert shapes["batch 1"] == [(8, 8, 6), (8, 12, 4)]
    assert shapes["longer"] == [(33, 33, 17), (33, 12, 4)]
    edges = [shapes[name] for name, case in cases.items() if name.startswith("smallest")]
    assert edges == [[(1, 1, 4)], [(1, 1, 4)], []]  # of the frames, the mask, what is past
    assert not shapes["corner values"] and not any(case.otherwise for case in generate(BERT))
    alike = cases["left padding"].otherwise[0].feed
    assert alike["attention_mask"].shape == alike["frames"].shape[:2] and not alike["attention_mask"].all()


def test_limits_hold_and_shapes_that_they_make_equal_appear_once():
    for case in generate(BERT, limits={"s1": (2, 7)}):
        assert 2 <= case.feed["input_ids"].shape[1] <= 7
    fixed = generate(BERT[:1], limits={"s0": (4, 4), "s1": (5, 5)})
    assert [case.feed["input_ids"].shape for case in fixed if not case.optional] == [(4, 5)]
    constant = generate((TensorSpec("x", "float32", (2, 3)),))
    assert [case.feed["x"].shape for case in constant if not case.optional] == [(2, 3)]


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
        assert all(np.isfinite(feed[name]).all() for name in ("pixel_values", "bf", "half"))
        assert feed["scalar"].shape == () and all(value.flags.c_contiguous for value in feed.values())
        if case.name == "a row fully masked":
            assert not feed["decoder_attention_mask"][-1].any() and not feed["attention_mask"][-1].any()


# --- corner values ------------------------------------------------------------------------------

IMAGE = (TensorSpec("pixel_values", "float32", ("s0", 3, 4, 4)),)


def corners(specs, name="corner values"):
    return {case.name: case for case in generate(specs) if case.name.startswith(name)}


def test_one_case_has_both_ends_of_the_vocabulary_everywhere_and_in_turn():
    (case,) = corners(BERT).values()
    assert case.optional and not case.edge
    ids = case.feed["input_ids"]
    assert ids.tolist() == [[0] * 7, [99] * 7, [99, 0, 99, 0, 99, 0, 99]]
    assert case.feed["token_type_ids"].max() == 1 and case.feed["attention_mask"].all()


def test_one_case_is_silence_white_and_a_chequerboard():
    (case,) = corners(IMAGE).values()
    black, white, board = case.feed["pixel_values"]
    assert not black.any() and np.signbit(black).any() and not np.signbit(black).all()
    assert (white == np.float32(WHITE)).all()
    assert set(board.ravel()) == {np.float32(BLACK), np.float32(WHITE)} and (board[0, 0, 0] != board[0, 0, 1])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_tiny_and_large_values_are_an_edge_of_floats_alone(dtype):
    specs = (TensorSpec("x", dtype, ("s0", 30)),)
    (case,) = corners(specs, "tiny").values()
    assert case.edge and case.optional and not corners(BERT, "tiny")
    tiny, large = np.asarray(case.feed["x"], np.float64)[:2]
    smallest = np.finfo("float32" if dtype == "bfloat16" else dtype).smallest_normal
    denormal = (tiny != 0) & (np.abs(tiny) < smallest)
    assert denormal.any() and (tiny == smallest).any() and (np.signbit(tiny) & (tiny == 0)).any()
    assert np.abs(tiny).mean() > 0.3, "between ordinary values, so that flushing is no divergence"
    assert 100 < large.max() <= LARGE and large.min() >= 0


def test_a_small_fixed_batch_takes_more_cases_for_the_same_rows():
    (together,) = corners(IMAGE).values()
    alone = corners((TensorSpec("pixel_values", "float32", (1, 3, 4, 4)),))
    assert list(alone) == ["corner values", "corner values, from row 2", "corner values, from row 3"]
    for row, case in zip(together.feed["pixel_values"], alone.values(), strict=True):
        assert np.array_equal(case.feed["pixel_values"], row[None])


def test_corner_values_need_no_shape_of_their_own():
    for specs in (BERT, IMAGE):
        shapes = {str(case.shapes) for case in generate(specs) if not case.optional}
        assert {str(case.shapes) for case in generate(specs) if case.optional} <= shapes


def test_what_has_one_value_or_a_meaning_of_its_own_keeps_it():
    specs = (
        TensorSpec("grid", "int64", (1, 2), value=[[3, 4]]),
        TensorSpec("position_ids", "int64", ("s0", "s1")),
        TensorSpec("some_mask", "bool", ("s0", "s1")),
    )
    for case in generate(specs):
        assert not case.optional and case.feed["grid"].tolist() == [[3, 4]]


def test_denormal_numbers_become_zeros_of_their_sign_and_nothing_else_changes():
    feed = {"x": np.array([1e-40, -1e-40, 1.0, np.nan, -np.inf, 1.2e-38], np.float32), "n": np.array([1])}
    flushed = without_denormals(feed)
    assert flushed is not None and flushed["n"] is feed["n"]
    assert np.array_equal(flushed["x"], np.array([0, 0, 1, np.nan, -np.inf, 1.2e-38], "f4"), equal_nan=True)
    assert np.signbit(flushed["x"]).tolist() == [False, True, False, False, True, False]
    assert without_denormals({"x": feed["x"][2:], "n": feed["n"]}) is None
