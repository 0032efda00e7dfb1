# SPDX-License-Identifier: Apache-2.0
"""Tensors cross the border unchanged, and what a port cannot take is refused with all that is wrong."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import types
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.modeling_outputs import BaseModelOutputWithPooling

from paritas import pytree
from paritas.errors import CaptureError, InputError, PortError
from paritas.program import TensorSpec
from paritas.run.values import (
    Output,
    build_output,
    check_feed,
    describe_output,
    framework_of,
    from_numpy,
    leaf_names,
    to_numpy,
)
from paritas.size_names import shown
from work import calls_of

BORDER = [
    torch.arange(6).reshape(2, 3),
    torch.arange(6).reshape(2, 3).T,
    torch.tensor(3.5),
    torch.zeros(0, 4),
    torch.tensor([True, False]),
    torch.tensor([1.0, float("nan"), float("inf"), -0.0], requires_grad=True),
    torch.tensor([1.0, 65504.0], dtype=torch.float16),
    torch.nn.Parameter(torch.ones(2)),
    torch.arange(8)[::2],
    torch.tensor([1 + 2j]).conj(),
    torch.tensor([1 + 2j]).conj().imag,
]


@pytest.mark.parametrize("value", BORDER, ids=lambda v: f"{v.dtype}-{tuple(v.shape)}".removeprefix("torch."))
def test_torch_becomes_numpy_and_returns(value: torch.Tensor) -> None:
    array = to_numpy("x", value)
    assert array.flags.c_contiguous and array.shape == tuple(value.shape)
    back = from_numpy(array, "torch", str(value.dtype).removeprefix("torch."))
    assert back.dtype == value.dtype and back.shape == value.shape
    assert torch.equal(torch.nan_to_num(back), torch.nan_to_num(value.detach().resolve_conj()))


def test_every_bfloat16_crosses_exactly() -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    array = to_numpy("x", every)
    assert array.dtype == np.float32
    back = from_numpy(array, "torch", "bfloat16")
    assert back.dtype == torch.bfloat16
    number = ~every.isnan()
    assert torch.equal(back[number].view(torch.int16), every[number].view(torch.int16)) and back[~number].isnan().all()
    assert from_numpy(array, "numpy", "bfloat16").dtype == np.float32


def test_crossing_shares_memory() -> None:
    tensor = torch.zeros(3)
    array = to_numpy("x", tensor)
    array[0] = 1
    assert tensor[0] == 1
    from_numpy(array, "torch", "float32")[1] = 1
    assert tensor[1] == 1
    frozen = np.zeros(3, np.float32)
    frozen.flags.writeable = False
    from_numpy(frozen, "torch", "float32")[0] = 1
    assert frozen[0] == 0
    assert from_numpy(np.float32(2), "torch", "float32").shape == ()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("text", "x is a builtins.str"),
        (types, "x is a builtins.module"),
        (["a"], "x holds str"),
        ([[1], [1, 2]], "x cannot be made an array"),
        (np.array([object()]), "x holds object"),
        (np.ma.masked_array([1, 2], [0, 1]), "masked"),
        (torch.eye(2).to_sparse(), "sparse"),
        (torch.ones(2, device="meta"), "meta device"),
    ],
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
def test_what_is_no_dense_array_of_numbers_is_refused(value: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        to_numpy("x", value)


def test_numpy_is_made_contiguous_and_native() -> None:
    assert to_numpy("x", np.arange(6).reshape(2, 3).T).flags.c_contiguous
    swapped = to_numpy("x", np.arange(3, dtype=">i4"))
    assert swapped.dtype == np.int32 and swapped.tolist() == [0, 1, 2]
    assert to_numpy("x", np.float32(1)).shape == () and to_numpy("x", 3).dtype == np.int64
    whole = np.arange(3)
    assert to_numpy("x", whole) is whole


def test_framework_of() -> None:
    assert framework_of({"a": torch.ones(1), "b": torch.nn.Parameter(torch.ones(1)), "c": True}) == "torch"
    assert framework_of({"a": np.ones(1), "b": np.float32(1), "c": [1]}) == "numpy"
    assert framework_of({}) == framework_of({"a": [[1, 2]], "b": None, "c": "x"}) == "numpy"
    with pytest.raises(InputError, match="different frameworks: a is torch, b is numpy"):
        framework_of({"a": torch.ones(1), "b": np.ones(1), "c": 1})

    class Mine(torch.Tensor):
        pass

    assert framework_of({"a": torch.ones(1).as_subclass(Mine)}) == "torch"


def test_mindspore_crosses_in_a_process_of_its_own() -> None:
    code = """
import sys
import numpy as np, mindspore as ms
from paritas.run.values import framework_of, from_numpy, to_numpy
assert "torch" not in sys.modules
for value in (np.float32(3), np.zeros((0, 2), np.float16), np.array([True]), np.arange(4).reshape(2, 2).T):
    tensor = from_numpy(value, "mindspore", value.dtype.name)
    assert framework_of({"a": tensor, "b": ms.Parameter(tensor)}) == "mindspore"
    back = to_numpy("a", tensor)
    assert back.dtype == value.dtype and back.shape == value.shape and (back == value).all()
    assert to_numpy("a", tensor.T).flags.c_contiguous
half = from_numpy(np.float32([1.5, 2.703125]), "mindspore", "bfloat16")
assert half.dtype == ms.bfloat16 and to_numpy("a", half).tolist() == [1.5, 2.703125]
assert to_numpy("a", half).dtype == np.float32
assert "torch" not in sys.modules
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "fine", done.stderr[-2000:]


# --- check_feed --------------------------------------------------------------------------------

IDS = TensorSpec("input_ids", "int64", ("s0", "s1"), high=100)
MASK = TensorSpec("attention_mask", "int64", ("s0", "s1"))
TYPES = TensorSpec("token_type_ids", "int64", ("s0", "s1"), high=2, default=0)
PIXELS = TensorSpec("pixels", "float32", ("s0", 3, "8*s2", "s3"))
FLAG = TensorSpec("flag", "bool", ("s0",))
HALF = TensorSpec("half", "bfloat16", ("s0",))
TEXT = (IDS, MASK, TYPES)
ids, mask = np.arange(6).reshape(2, 3), np.ones((2, 3), np.int64)


def wrong(inputs: dict[str, Any], *specs: TensorSpec, constants: Any = None, limits: Any = None) -> str:
    with pytest.raises(InputError) as caught:
        check_feed(inputs, specs, constants, limits)
    return str(caught.value)


def test_a_right_feed_comes_out_in_the_order_of_the_specs() -> None:
    feed = check_feed({"attention_mask": mask, "input_ids": ids}, TEXT)
    assert list(feed) == ["input_ids", "attention_mask", "token_type_ids"]
    assert feed["input_ids"] is ids and feed["token_type_ids"].shape == (2, 3) and not feed["token_type_ids"].any()
    assert check_feed({"input_ids": ids.tolist(), "attention_mask": mask, "token_type_ids": None}, TEXT)
    assert check_feed({"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}, TEXT)


def test_all_that_is_wrong_is_said_at_once() -> None:
    text = wrong({"input_id": ids, "attention_mask": mask[0], "pixels": mask, "extra": None}, *TEXT, PIXELS)
    assert text.splitlines() == [
        "4 problems:",
        "  input_id is not an input. Did you mean input_ids? The inputs are: "
        "input_ids, attention_mask, token_type_ids, pixels",
        "  input_ids is missing: int64[batch, tokens] is expected",
        "  attention_mask has 1 dimensions [3]; 2 are expected: [batch, tokens]",
        "  pixels has 2 dimensions [2, 3]; 4 are expected: [batch, 3, 8*n, width]",
    ]


@pytest.mark.parametrize(
    ("inputs", "specs", "says"),
    [
        ({"input_ids": ids, "attention_mask": mask[:, :2]}, TEXT, "attention_mask has size 2 in dimension 1"),
        ({"input_ids": ids[:0]}, (IDS,), r"input_ids is empty: its shape is [0, 3]"),
        ({"input_ids": ids * 30}, (IDS,), "holds 120 at [1, 1] and 1 more; the model knows 0 to 99"),
        ({"input_ids": ids - 1}, (IDS,), "input_ids holds -1 at [0, 0]; the model knows 0 to 99"),
        ({"input_ids": (ids - 1).astype(np.int8)}, (IDS,), "input_ids holds -1 at [0, 0]"),
        ({"input_ids": ids * 1.0}, (IDS,), "input_ids is float64; int64 is expected. If that is meant: "),
        ({"input_ids": torch.ones(2, 3)}, (IDS,), "If that is meant: input_ids.to(torch.int64)"),
        ({"input_ids": np.full((1, 1), 2**63, np.uint64)}, (IDS,), "9223372036854775808, which int64 cannot"),
        ({"flag": np.array([0, 1, 2])}, (FLAG,), "flag is int64 and holds 2, which bool cannot hold"),
        ({"pixels": np.zeros((1, 3, 8, 2))}, (PIXELS,), "pixels is float64; float32 is expected"),
        ({"pixels": np.zeros((1, 3, 8, 2), int)}, (PIXELS,), "pixels is int64; float32 is expected"),
        ({"pixels": np.zeros((1, 4, 8, 2), "f")}, (PIXELS,), "size 4 in dimension 1; 3 is expected"),
        ({"pixels": np.zeros((1, 3, 9, 2), "f")}, (PIXELS,), "size 9 in dimension 2; it must be 8*n for some n"),
        ({"half": torch.zeros(2)}, (HALF,), "half is float32; bfloat16 is expected"),
        ({"half": np.zeros(2)}, (HALF,), "half is float64; bfloat16 is expected"),
        ({"flag": "yes"}, (FLAG,), "flag is a builtins.str"),
        ({"token_type_ids": None}, (TYPES,), "is missing, and no other input says how large batch"),
    ],
)  # fmt: skip
def test_one_thing_wrong_is_one_line(inputs: dict[str, Any], specs: tuple[TensorSpec, ...], says: str) -> None:
    text = wrong(inputs, *specs)
    assert says in text and "\n" not in text and text.endswith(".")


def test_exact_casts_are_made() -> None:
    for dtype in (np.int32, np.uint8, np.int8, np.uint64, bool):
        got = check_feed({"input_ids": mask.astype(dtype)}, (IDS,))["input_ids"]
        assert got.dtype == np.int64 and got.all()
    narrow = TensorSpec("n", "int32", ("s0",))
    assert check_feed({"n": np.array([2**31 - 1])}, (narrow,))["n"].dtype == np.int32
    assert "cannot hold" in wrong({"n": np.array([2**31])}, narrow)
    assert check_feed({"flag": np.array([0, 1])}, (FLAG,))["flag"].tolist() == [False, True]
    image = np.zeros((1, 3, 8, 2), np.float16)
    assert check_feed({"pixels": image}, (PIXELS,))["pixels"].dtype == np.float32
    assert check_feed({"pixels": torch.zeros(1, 3, 8, 2, dtype=torch.bfloat16)}, (PIXELS,))["pixels"].any() == 0
    assert check_feed({"pixels": image.astype(float).tolist()}, (PIXELS,))["pixels"].dtype == np.float32


def test_numpy_float32_is_rounded_to_bfloat16_as_torch_does() -> None:
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2**32, 20_000, dtype=np.uint64).astype(np.uint32)
    values = np.concatenate([bits.view(np.float32), np.float32([np.inf, -np.inf, np.nan, 0.0, -0.0, 3.4e38])])
    got = check_feed({"half": values}, (HALF,))["half"]
    want = torch.from_numpy(values).bfloat16().float().numpy()
    assert np.array_equal(got, want, equal_nan=True)
    number = ~np.isnan(want)
    assert np.array_equal(np.signbit(got[number]), np.signbit(want[number]))
    exact = torch.from_numpy(values).bfloat16()
    assert np.array_equal(check_feed({"half": exact}, (HALF,))["half"], want, equal_nan=True)


def test_dimensions_that_depend_on_others() -> None:
    twice = TensorSpec("twice", "int64", ("s0", "2*s1"))
    assert check_feed({"input_ids": ids, "twice": np.ones((2, 6), np.int64)}, (IDS, twice))
    text = wrong({"input_ids": ids, "twice": np.ones((2, 5), np.int64)}, IDS, twice)
    assert text == "twice has size 5 in dimension 1; 6 is expected, as it is 2*tokens with tokens=3."
    odd = TensorSpec("odd", "int64", ("Max(1, s0)", "s1//2", "s2**2"))
    assert check_feed({"odd": np.ones((2, 5, 9), np.int64)}, (odd,))
    text = wrong({"odd": np.ones((2, 5, 7), np.int64)}, odd)
    assert text == "odd has size 7 in dimension 2; it must be k**2 for some k."
    loose = TensorSpec("mask", "int64", ("s9", "s1"), default=1)
    assert check_feed({"input_ids": ids}, (IDS, loose))["mask"].tolist() == [[1] * 3] * 2
    plus = TensorSpec("plus", "int64", ("s0", "s1 + 1"), default=7)
    assert check_feed({"input_ids": ids}, (IDS, plus))["plus"].tolist() == [[7] * 4] * 2


def test_limits() -> None:
    text = wrong({"input_ids": ids}, IDS, limits={"s1": 2})
    assert text == "input_ids has size 3 in dimension 1; the model takes at most 2."
    assert check_feed({"input_ids": ids}, (IDS,), limits={"s1": 3})


def test_constants_may_be_repeated_but_not_changed() -> None:
    constants = {"use_cache": False, "size": (2, 2), "alpha": 1, "nothing": None}
    fine = {"use_cache": False, "size": [2, 2], "alpha": 1.0, "nothing": None, "unknown": None}
    assert check_feed({"input_ids": ids, **fine}, (IDS,), constants)
    assert check_feed({"input_ids": ids, "size": np.array([2, 2])}, (IDS,), constants)
    text = wrong({"input_ids": ids, "use_cache": True}, IDS, constants=constants)
    assert text == "use_cache=True is not possible: this port was made with use_cache=False."
    for change in (
        {"alpha": 2},
        {"alpha": True},
        {"use_cache": 0},
        {"size": (2, 3)},
        {"size": np.array([2, 3])},
    ):
        assert "this port was made with" in wrong({"input_ids": ids, **change}, IDS, constants=constants)
    assert "Did you mean use_cache?" in wrong({"input_ids": ids, "use_cash": 0}, IDS, constants=constants)


def test_checking_is_cheap() -> None:
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    assert calls_of(framework_of, inputs) + calls_of(check_feed, inputs, TEXT, {"use_cache": False}) < 250


# --- outputs -----------------------------------------------------------------------------------

Pair = namedtuple("Pair", "left right")


def model_output() -> Any:
    tensors = [torch.full((2,), float(i)) for i in range(4)]
    return BaseModelOutputWithPooling(
        last_hidden_state=tensors[0], pooler_output=tensors[1], hidden_states=(tensors[2], tensors[3])
    )


OUTPUTS = [
    torch.ones(2),
    (torch.ones(1), torch.zeros(1)),
    [torch.ones(1), None, 3, 1.5, "a", True],
    {"b": torch.ones(1), "a": (torch.zeros(1), {"c": torch.ones(2)})},
    Pair(torch.ones(1), [torch.zeros(1)]),
    (),
]


@pytest.mark.parametrize("out", OUTPUTS, ids=lambda o: type(o).__name__)
def test_outputs_round_trip_through_json(out: Any) -> None:
    flat, structure = describe_output(out)
    leaves = [x for x in torch.utils._pytree.tree_leaves(out) if isinstance(x, torch.Tensor)]
    assert all(a is b for a, b in zip(flat, leaves, strict=True))  # the order of torch.export
    again = build_output(json.loads(json.dumps(structure)), flat, "torch")
    assert again is out if isinstance(out, torch.Tensor) else again == out
    assert len(leaf_names(structure)) == len(flat)


def test_names_of_leaves() -> None:
    assert leaf_names(describe_output(torch.ones(1))[1]) == ["output"]
    assert leaf_names(describe_output((torch.ones(1), [torch.ones(1)]))[1]) == ["output_0", "output_1.0"]
    want = ["last_hidden_state", "pooler_output", "hidden_states.0", "hidden_states.1"]
    assert leaf_names(describe_output(model_output())[1]) == want


def test_the_originals_class_for_torch_and_for_those_who_have_it() -> None:
    out = model_output()
    flat, structure = describe_output(out)
    for framework, values in (("torch", flat), ("numpy", [t.numpy() for t in flat])):
        again = build_output(structure, values, framework)
        assert type(again) is BaseModelOutputWithPooling and list(again) == list(out)
        assert again.attentions is None and again[0] is again.last_hidden_state is values[0]
        assert again["pooler_output"] is values[1] and again.hidden_states == (values[2], values[3])
        assert len(again.to_tuple()) == 3


def test_an_output_of_our_own_where_transformers_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    flat, structure = describe_output(model_output())
    values = [t.numpy() for t in flat]
    monkeypatch.delitem(sys.modules, "transformers")
    out = build_output(structure, values, "numpy")
    assert type(out) is Output and out.attentions is None and "attentions" not in out
    assert out[0] is out["last_hidden_state"] is out.last_hidden_state is values[0]
    assert out[1:] == out.to_tuple()[1:] and list(out) == [
        "last_hidden_state",
        "pooler_output",
        "hidden_states",
    ]
    with pytest.raises(AttributeError, match=r"no 'logits'\. It has: last_hidden_state"):
        out.logits  # noqa: B018
    with pytest.raises(KeyError):
        out["logits"]
    for twin in (pickle.loads(pickle.dumps(out)), copy.deepcopy(out)):  # noqa: S301 - our own class
        assert type(twin) is Output and twin.attentions is None and np.array_equal(twin[0], out[0])
    out.logits = 1
    assert out["logits"] == 1


def test_classes_named_in_a_file_are_never_imported_unless_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []
    monkeypatch.setattr(pytree.importlib, "import_module", lambda name: imported.append(name) or types)
    structure = {"kind": "output", "fields": ["a"], "items": {"a": {"kind": "constant", "value": 1}}}
    for name in (
        "os.System",
        "transformers",
        "transformersX.y.Z",
        "transformers..Z",
        "a.transformers.b.C",
        "x:y",
    ):
        assert type(build_output({**structure, "class": name}, [], "torch")) is Output
    assert not imported
    for name in (
        "transformers.AutoModel",
        "transformers.modeling_utils.PreTrainedModel",
        "transformers.no.Such",
    ):
        assert type(build_output({**structure, "class": name}, [], "torch")) is Output


def test_caches() -> None:
    keys = [torch.rand(1, 2, 3, 4) for _ in range(4)]
    cache = transformers.DynamicCache([(keys[0], keys[1]), (keys[2], keys[3])])
    flat, structure = describe_output({"past_key_values": cache})
    assert all(torch.equal(a, b) for a, b in zip(flat, keys, strict=True))
    assert leaf_names(structure) == [f"past_key_values.{i}.{k}" for i in (0, 1) for k in ("keys", "values")]
    again = build_output(json.loads(json.dumps(structure)), flat, "torch")["past_key_values"]
    assert type(again) is transformers.DynamicCache and again.get_seq_length() == 3
    assert torch.equal(again.layers[1].values, keys[3])
    plain = build_output(structure, [t.numpy() for t in flat], "numpy")["past_key_values"]
    assert isinstance(plain, tuple) and np.array_equal(plain[1][1], keys[3])
    both = transformers.EncoderDecoderCache(cache, transformers.DynamicCache([(keys[0], keys[1])]))
    flat, structure = describe_output(both)
    assert type(build_output(structure, flat, "torch")) is transformers.EncoderDecoderCache and len(flat) == 6


def test_what_cannot_be_described_or_built() -> None:
    with pytest.raises(CaptureError, match=r"the output\.a\[1\] is a builtins\.object"):
        describe_output({"a": (torch.ones(1), object())})
    with pytest.raises(CaptureError, match=r"dict with the key \(1, 2\)"):
        describe_output({(1, 2): torch.ones(1)})
    for broken in (
        {},
        {"kind": "tensor", "index": 5},
        {"kind": "magic", "items": []},
        {"kind": "tuple", "items": 3},
    ):
        with pytest.raises(PortError, match="damaged"):
            build_output(broken, [], "numpy")


def test_no_framework_is_imported() -> None:
    code = "import sys, paritas.run.values; print({'torch', 'transformers', 'mindspore'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("specs", "says"),
    [
        ((("input_ids", "s10", "s70"), ("attention_mask", "s10", "s27 + s70"), ("cache.0.keys", "s10", 4, "s27", 8)),
         ["input_ids: int64[batch, tokens]", "attention_mask: int64[batch, seen + tokens]",
          "cache.0.keys: int64[batch, 4, seen, 8]"]),
        ((("x", "s0", "s1"), ("y", "s3", "s1")), ["x: int64[batch, x_size1]", "y: int64[batch_of_y, x_size1]"]),
        ((("batch", "s0"), ("s1", "s1", "batch")), ["batch: int64[batch_of_batch]", "s1: int64[s1, batch]"]),
        ((("pixel_values", "s0", 3, "s1", "s2"),), ["pixel_values: int64[batch, 3, height, width]"]),
    ],
)  # fmt: skip
def test_sizes_have_names(specs: Any, says: list[str]) -> None:
    assert shown([TensorSpec(name, "int64", tuple(dims)) for name, *dims in specs]) == says
