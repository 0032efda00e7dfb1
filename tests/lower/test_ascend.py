# SPDX-License-Identifier: Apache-2.0
"""What is written for Ascend, which cannot run here: its own kernels, called as MindSpore declares them."""

from __future__ import annotations

import ast
import inspect
import re

import pytest
import torch

from families import build
from paritas.capture import capture
from paritas.lower.mindspore.check import grammar
from paritas.lower.mindspore.write.module import generate


def _source(family: str, dtype: torch.dtype) -> str:
    return generate(capture(build(family).to(dtype)), target="ascend").source


class Attention(torch.nn.Module):
    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, mask, is_causal=self.causal)


def _attention(
    mask: torch.Tensor | None, dtype: torch.dtype = torch.float16, width: int = 16, causal: bool = False
) -> str:
    inputs = {"x": torch.randn(2, 4, 5, width, dtype=dtype)} | ({} if mask is None else {"mask": mask})
    return generate(capture(Attention(causal), inputs, dynamic=False), target="ascend").source


def _check_calls(source: str) -> set[str]:
    """Bind every call of MindSpore's functions to its signature; which functions there are."""
    ops = pytest.importorskip("mindspore").ops
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not re.fullmatch(r"ops\.\w+", ast.unparse(node.func)):
            continue
        name = ast.unparse(node.func).removeprefix("ops.")
        function = getattr(ops, name)
        found.add(name)
        if inspect.isfunction(function):
            inspect.signature(function).bind(*node.args, **{str(k.arg): k.value for k in node.keywords})
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_norm_is_one_kernel_and_every_call_is_one_that_mindspore_takes(dtype: torch.dtype) -> None:
    source = _source("llama", dtype)
    grammar.check(source, "ascend")
    called = _check_calls(source)
    assert "rms_norm" in called
    assert {"softmax", "BatchMatMul"} & called or "flash_attention_score" in called


SHOWN = torch.ones(2, 1, 5, 5, dtype=torch.bool)


@pytest.mark.parametrize(
    ("mask", "options"),
    [
        (None, {"scalar_value", "input_layout"}),
        (SHOWN, {"attn_mask", "scalar_value", "input_layout"}),
        (SHOWN[0, 0], {"attn_mask", "scalar_value", "input_layout"}),
        (torch.randn(2, 4, 5, 5).half(), {"real_shift", "scalar_value", "input_layout"}),
    ],
    ids=["none", "bool", "one for all", "float"],
)
def test_attention_at_half_precision_is_one_kernel(mask: torch.Tensor | None, options: set[str]) -> None:
    source = _attention(mask)
    grammar.check(source, "ascend")
    (call,) = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "ops.flash_attention_score"
    ]
    assert {keyword.arg for keyword in call.keywords} == options
    assert "flash_attention_score" in _check_calls(source)
    if mask is not None and mask.dtype == torch.bool:
        assert "ops.logical_not(mask)" in source, "MindSpore's mask says what is hidden, torch's what is seen"


def test_a_causal_mask_hides_what_comes_later() -> None:
    assert "attn_mask=ops.arange(5) > ops.expand_dims(ops.arange(5), -1)" in _attention(None, causal=True)


@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 16), (torch.float16, 8)])
def test_attention_that_the_kernel_does_not_take_is_written_out(dtype: torch.dtype, width: int) -> None:
    assert "flash_attention_score" not in _attention(None, dtype, width)
