# SPDX-License-Identifier: Apache-2.0
"""The shorter ways of a capture lead to the graph, the shapes and the conditions of torch's own."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.export import Dim

from paritas.capture import detours

F = torch.nn.functional


class Of(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.square = torch.nn.Linear(4, 4)
        self.bare = torch.nn.Linear(4, 6, bias=False)

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self.function(self, *tensors)


def floats(*shape: int, **options: Any) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), **options)


def attend(**options: Any) -> Callable[..., Any]:
    """To keys that are the values too: of sizes of keys and values, torch's own way does not ask all that it needs."""

    def call(_: Any, queries: Any, keys: Any, mask: Any = None) -> Any:
        return F.scaled_dot_product_attention(queries, keys, keys, attn_mask=mask, **options)

    return call


def apart(_: Any, queries: Any, keys: Any, values: Any) -> Any:
    return F.scaled_dot_product_attention(queries, keys, values)


def no_grad_inside(m: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = x.cos()
    return m.square(x) * y


CASES: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "linear of three dimensions": (lambda m, x: m.square(x), (floats(2, 3, 4),)),
    "linear of two": (lambda m, x: m.bare(x), (floats(3, 4),)),
    "linear of one": (lambda m, x: m.bare(x), (floats(4),)),
    "linear of a transposed input": (lambda m, x: m.square(x.transpose(0, 1)), (floats(2, 3, 4),)),
    "linear whose input's size is free": (lambda m, x, w: F.linear(x, w), (floats(2, 3, 5), floats(7, 5))),
    "attention": (attend(), (floats(2, 3, 5, 8), floats(2, 3, 5, 8))),
    "attention to others": (attend(), (floats(2, 3, 5, 8), floats(2, 3, 7, 8))),
    "attention, values of another width": (apart, (floats(2, 3, 5, 8), floats(2, 3, 7, 8), floats(2, 3, 7, 6))),
    "attention, causal": (attend(is_causal=True), (floats(2, 3, 5, 8), floats(2, 3, 5, 8))),
    "attention, a mask for each": (
        attend(scale=0.5),
        (floats(2, 3, 5, 8), floats(2, 3, 7, 8), floats(2, 3, 5, 7)),
    ),
    "attention, a mask for all heads": (
        attend(),
        (floats(2, 3, 5, 8), floats(2, 3, 7, 8), floats(2, 1, 5, 7) > 0),
    ),
    "attention, a mask of two dimensions": (attend(), (floats(2, 3, 5, 8), floats(2, 3, 7, 8), floats(5, 7))),
    "attention, fewer keys": (attend(enable_gqa=True), (floats(2, 4, 5, 8), floats(2, 2, 5, 8))),
    "attention, one row of keys for all": (attend(), (floats(2, 3, 5, 8), floats(1, 3, 5, 8))),
    "cat": (lambda m, a, b: torch.cat((a, b), 1), (floats(2, 3, 4), floats(2, 5, 4))),
    "cat of whole numbers": (
        lambda m, a, b: torch.cat((a, b)),
        (torch.ones(2, 3, dtype=torch.int64), torch.ones(4, 3, dtype=torch.int64)),
    ),
    "cat of two dtypes": (lambda m, a, b: torch.cat((a, b)), (floats(2, 3), floats(4, 3, dtype=torch.float64))),
    "cat behind nothing": (lambda m, a: torch.cat((a.new_empty(0), a), -2), (floats(2, 3, 4),)),
    "cat, last": (lambda m, a: torch.cat((-a[..., 2:], a[..., :2]), -1), (floats(2, 3, 4, 4),)),
    "cat of transposed ones": (
        lambda m, a: torch.cat((a.transpose(1, 2), a.transpose(1, 2)), 2),
        (floats(2, 3, 4, 5),),
    ),
    "cat of images with channels last": (
        lambda m, a: torch.cat((a, a), 1),
        (floats(2, 3, 4, 5).to(memory_format=torch.channels_last),),
    ),
    "groups": (lambda m, x: F.group_norm(x, 2, x.new_ones(4), x.new_ones(4)), (floats(2, 4, 3, 5),)),
    "groups of three dimensions": (lambda m, x: F.group_norm(x, 4), (floats(2, 4, 6),)),
    "groups of a transposed input": (lambda m, x: F.group_norm(x.transpose(2, 3), 2), (floats(2, 4, 3, 5),)),
    "groups of images with channels last": (
        lambda m, x: F.group_norm(x.to(memory_format=torch.channels_last), 2),
        (floats(2, 4, 3, 5),),
    ),
    "layer norm": (lambda m, x: F.layer_norm(x, (4,), x.new_ones(4)), (floats(2, 3, 4),)),
    "layer norm of two dimensions": (lambda m, x: F.layer_norm(x, (3, 4)), (floats(2, 5, 3, 4),)),
    "layer norm of a transposed input": (lambda m, x: F.layer_norm(x.transpose(0, 1), (4,)), (floats(2, 3, 4),)),
    "no_grad inside": (no_grad_inside, (floats(2, 4),)),
}


def traced(case: str, *, short: bool) -> tuple[str, list[Any], dict[str, str]]:
    function, tensors = CASES[case]
    shapes = {"tensors": tuple(dict.fromkeys(range(tensor.dim()), Dim.AUTO) for tensor in tensors)}
    with torch.no_grad(), detours.cut() if short else contextlib.nullcontext():
        program = torch.export.export(Of(function).eval(), tensors, dynamic_shapes=shapes)
    values = [
        (str(value.shape), value.dtype, str(value.stride()))
        for node in program.graph.nodes
        if isinstance(value := node.meta.get("val"), torch.Tensor)
    ]
    return str(program.graph), values, {str(name): str(limits) for name, limits in program.range_constraints.items()}


@pytest.mark.parametrize("case", CASES)
def test_the_graph_and_its_sizes_are_torchs_own(case: str) -> None:
    assert traced(case, short=True) == traced(case, short=False)


def test_nothing_is_left_behind() -> None:
    linear = torch.ops.aten.linear.default
    before = dict(linear.py_kernels), dict(detours.get_fast_op_impls())
    with detours.cut():
        assert dict(linear.py_kernels) != before[0]
    assert (dict(linear.py_kernels), dict(detours.get_fast_op_impls())) == before


def test_sizes_that_are_unequal_are_torchs_to_refuse() -> None:
    def wrong(m: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.cat((a, b), 1)

    with detours.cut(), pytest.raises(Exception, match=r"(?i)sizes|expected|match"):
        torch.export.export(
            Of(wrong), (floats(2, 3), floats(4, 3)), dynamic_shapes={"tensors": ({0: Dim.AUTO}, {0: Dim.AUTO})}
        )


def test_keys_are_as_long_as_values() -> None:
    """What torch's own way does not ask, and PyTorch needs."""
    function, tensors = apart, (floats(2, 3, 5, 8), floats(2, 3, 7, 8), floats(2, 3, 7, 8))
    shapes = {"tensors": tuple({2: Dim.AUTO} for _ in tensors)}
    with torch.no_grad(), detours.cut():
        program = torch.export.export(Of(function).eval(), tensors, dynamic_shapes=shapes)
    _, keys, values = (
        n.meta["val"].shape for n in program.graph.nodes if n.op == "placeholder" and "tensors" in n.name
    )
    assert keys[2] == values[2] and len(program.range_constraints) == 2


def test_models_that_nobody_has_imported_are_not_imported_to_be_patched() -> None:
    from paritas.capture import patches

    importlib.import_module("transformers.exporters.exporter_dynamo")
    utils = sys.modules["transformers.exporters.utils"]

    known = patches.patches()
    foreign = [path for path, *rest in utils._PATCHES["dynamo"] if path.startswith("transformers.models.")]
    before = set(sys.modules)
    with detours.cut():
        found = {path for path in foreign if utils.import_dotted_path(path, missing_ok=True) is not None}
    [one.place() for one in known if one.target.startswith("transformers.models.")]
    assert set(sys.modules) == before
    assert found == {path for path in foreign if ".".join(path.split(".")[:4]) in before}
    assert utils.import_dotted_path("torch.nn.functional") is F
