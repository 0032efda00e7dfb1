# SPDX-License-Identifier: Apache-2.0
"""Every node knows its own line, in whichever function that is, and the line of the model that led there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import proxy
from torch.fx.proxy import TracerBase
from torch.utils._traceback import CapturedTraceback
from transformers.integrations import sdpa_attention
from transformers.models.llama import modeling_llama

from families import build
from paritas.capture import capture
from paritas.capture.origin import frames
from paritas.capture.patches.frames import _Stack
from paritas.errors import CaptureError
from paritas.program import Frame, Origin, Program, place_of


def _lines(function: object) -> dict[str, int]:
    """The stripped lines of a function, and where they are."""
    text, first = inspect.getsourcelines(function)  # type: ignore[arg-type]
    return {line.strip(): first + number for number, line in enumerate(text)}


@pytest.fixture(scope="module")
def llama() -> Program:
    return capture(build("llama"))


def _of_operator(program: Program, operator: str) -> list[Origin]:
    return [program.origin(n.name) for n in program.graph.nodes if str(n.target) == operator]


def test_a_function_is_named_with_its_own_line(llama: Program) -> None:
    cat, file = "return torch.cat((-x2, x1), dim=-1)", str(modeling_llama.__file__)
    found = [o for o in _of_operator(llama, "aten.cat.default") if o.text == cat]
    assert {(o.file, o.line) for o in found} == {(file, _lines(modeling_llama.rotate_half)[cat])}
    assert {tuple(frame.function for frame in o.calls) for o in found} == {
        ("forward", "apply_rotary_pos_emb", "rotate_half")
    }
    line = _lines(modeling_llama.rotate_half)[cat]
    assert str(found[0]) == f"modeling_llama.py:{line}  {cat}", "all of it is in one file"


def test_the_models_own_line_is_named_where_it_is_in_another_file(llama: Program) -> None:
    origin = _of_operator(llama, "aten.scaled_dot_product_attention.default")[0]
    calls = _lines(modeling_llama.LlamaAttention.forward)
    line = calls["attn_output, attn_weights = attention_interface("]
    assert Path(origin.file) == Path(str(sdpa_attention.__file__))
    inner = f"sdpa_attention.py:{origin.line}"
    assert str(origin).startswith(f"{inner} (called at modeling_llama.py:{line})  attn_output = torch.nn.")


class Inside(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.halved(x) if x.shape[0] > 1 else x

    def halved(self, x: torch.Tensor) -> torch.Tensor:
        return x.chunk(2, -1)[0] * 0.5


class Outside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside, self.linear = Inside(), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inside(x))

    def head(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


@pytest.mark.parametrize("doubling", [False, True], ids=["functional", "writing"])
def test_frames_begin_with_the_forward_of_the_nodes_module(doubling: bool) -> None:
    class Model(Outside):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x)
            return y.add_(1) if doubling else y  # a graph that writes is traced twice

    program = capture(Model(), {"x": torch.randn(2, 4)})
    functions = {str(n.target): [f.function for f in program.origin(n.name).calls] for n in program.graph.nodes}
    assert functions["aten.mul.Tensor"] == ["forward", "halved"]
    assert functions["aten.linear.default"][-1] == "head"


def decorated(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def wrapper(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return forward(self, x)

    return wrapper


class Decorated(nn.Module):
    @decorated
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def test_what_decorates_a_forward_is_no_line_of_the_models() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Decorated()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    (node,) = [n for n in capture(Model(), {"x": torch.randn(3)}).graph.nodes if n.op == "call_function"]
    assert [(f.function, f.text) for f in frames(node)] == [
        ("forward", "return self.inner(x)"),
        ("forward", "return x * 2"),
    ]


class Refused(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(_chosen(x))


def _chosen(x: torch.Tensor) -> int:
    return 2 if x.sum() > 0 else 3


def test_what_cannot_be_captured_names_the_function_too_and_torch_is_as_before() -> None:
    before = (TracerBase._filter_traceback_frames, proxy.CapturedTraceback)
    with pytest.raises(CaptureError, match=r"at test_frames.py:\d+  return 2 if x.sum\(\) > 0 else 3"):
        capture(Refused(), {"x": torch.randn(2)})
    assert (TracerBase._filter_traceback_frames, proxy.CapturedTraceback) == before


def test_a_stack_is_read_as_torch_reads_it() -> None:
    def read(reader: Any) -> list[tuple[str, str]]:
        return [(frame.filename, frame.name) for frame in reader.extract().summary()]

    assert read(_Stack) == read(CapturedTraceback)
    line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    assert [reader.extract().summary()[-1].lineno for reader in (_Stack, CapturedTraceback)] == [line, line]


def test_places_are_printed_without_what_a_terminal_obeys() -> None:
    evil = Frame("/a/b\x1b[31m.py", 3, "f", "x = 1\x1b[0m")
    assert "\x1b" not in place_of([evil])
    assert "\x1b" not in place_of([Frame("/other.py", 1, "forward"), evil])
    assert place_of([]) == ""
