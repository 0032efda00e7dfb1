# SPDX-License-Identifier: Apache-2.0
"""What capture records: origins, dimensions, optional inputs, and everything it had to fix."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from more_programs import asserting_without_words, op
from ordinary_programs import Module
from torch import nn

import paritas
from families import build
from paritas.arguments import flatten
from paritas.capture import capture
from paritas.capture.modules import is_size
from paritas.errors import CaptureError, FrozenDimension, InputError, InputsNeeded
from paritas.guards import broken
from paritas.run.torch.session import TorchSession


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        hidden = self.linear(x)
        return hidden if scale is None else hidden * scale


def test_every_node_knows_its_module_class_and_source_line() -> None:
    program = capture(build("bert"))
    nodes = [n for n in program.graph.nodes if n.op == "call_function" and not is_size(n)]
    assert nodes
    for node in nodes:
        origin = program.origin(node.name)
        assert Path(origin.file).is_file(), node.name
        assert origin.line > 0
        assert origin.text, node.name
    attention = next(n for n in nodes if "scaled_dot_product_attention" in str(n.target))
    origin = program.origin(attention.name)
    assert (origin.module, origin.module_class) == ("encoder.layer.0.attention.self", "BertSelfAttention")
    assert Path(origin.file).name == "sdpa_attention.py"  # and the line of the model that calls it
    assert re.search(r"^sdpa_attention\.py:\d+ \(called at modeling_bert\.py:\d+\)  ", str(origin)), str(origin)


def test_the_graph_computes_what_the_model_does_on_other_shapes() -> None:
    model = build("llama")
    session = TorchSession(capture(model))
    ids = torch.randint(3, 120, (3, 9))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    with torch.no_grad():
        want = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    (got,) = session.run({"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), want, rtol=1e-5, atol=1e-5)


def test_batch_and_sequence_stay_dynamic_and_what_does_not_is_said() -> None:
    program = capture(build("clip-vision"))
    (pixels,) = program.inputs
    assert isinstance(pixels.dims[0], str)
    assert pixels.dims[1:] == (3, 32, 32)
    notes = [str(note) for note in program.notes]
    assert "capture: pixel_values dimension 2 is fixed at 32: the model does not leave it free" in notes

    text = capture(build("clip-text"))
    ids, mask = text.inputs
    assert ids.dims == mask.dims, "a mask has the sizes of its ids"
    assert all(isinstance(d, str) for d in ids.dims)
    assert text.limits == {ids.dims[1]: 40}, "the text has 40 positions"
    assert ids.high == 120


class Table(nn.Module):
    """As DINOv2 does: another way for images that are as large as the table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, 16, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[2] // 8, x.shape[3] // 8
        patches = nn.functional.avg_pool2d(x, 8).flatten(2).transpose(1, 2)
        if height * width == 16 and height == width:
            return patches + self.positions
        return patches


def test_a_size_that_chooses_the_way_is_free_behind_a_guard() -> None:
    program = capture(Table(), {"x": torch.randn(2, 3, 32, 32)})
    assert all(isinstance(program.inputs[0].dims[axis], str) for axis in (0, 2, 3))
    height, width = (str(program.inputs[0].dims[axis]) for axis in (2, 3))

    def taken(*sizes: int) -> bool:
        return not broken(program.guards, dict(zip((height, width), sizes, strict=True)))

    assert taken(32, 32) and taken(39, 32)
    assert not taken(40, 40) and not taken(64, 16)
    assert any("if height * width == 16 and height == width:" in guard.where for guard in program.guards)
    other = capture(Table(), {"x": torch.randn(2, 3, 48, 40)})
    assert len(broken(other.guards, dict(zip(other.inputs[0].dims[2:], (32, 32), strict=True)))) == 1  # type: ignore[arg-type]


def test_what_follows_from_a_guard_is_no_guard_where_a_graph_is_traced_again() -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor, past: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            seen = torch.cat([past, x], 1)
            if mask.shape[1] < seen.shape[1]:
                raise ValueError("a mask is as long as what is seen")
            written = torch.zeros_like(x)
            written[:, :1] = seen.sum(1, keepdim=True) * mask.sum(1)[:, None, None]  # traced once more for this
            return written

    x, past, mask = torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.ones(2, 8)
    program = capture(Masked(), {"x": x, "past": past, "mask": mask})
    assert len(program.guards) == 1, program.guards
    assert "if mask.shape[1] < seen.shape[1]:" in program.guards[0].where


def test_what_is_refused_with_free_sizes_is_captured_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    real = paritas.capture.export

    def refusing(model: nn.Module, call: Any, shapes: Any, **how: Any) -> Any:
        if any(len(dims or ()) > 1 for dims in (shapes or {}).values()):
            raise CaptureError("torch.export cannot capture Scaled: ValueError\n  a size must be known")
        return real(model, call, shapes, **how)

    monkeypatch.setattr("paritas.capture.export", refusing)
    program = capture(Scaled(), {"x": torch.randn(3, 5, 4)})
    assert isinstance(program.inputs[0].dims[0], str)
    assert program.inputs[0].dims[1:] == (5, 4)
    (note,) = map(str, program.notes)
    assert note == (
        "capture: all dimensions but the batch are fixed, since torch.export cannot keep them free: "
        "a size must be known"
    )
    with pytest.raises(CaptureError, match="a size must be known"):
        capture(Scaled(), {"x": torch.randn(3, 5, 4)}, dynamic={"x": {0: "batch", 1: "length"}})


def test_the_positions_of_a_decoder_limit_its_length() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(12, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.table(torch.arange(x.shape[1])[None] + 2)

    program = capture(Positions(), {"x": torch.randn(2, 5, 4)})
    assert program.limits == {program.inputs[0].dims[1]: 10}


def test_a_dimension_asked_to_be_dynamic_is_not_frozen_silently() -> None:
    with pytest.raises(FrozenDimension, match="pixel_values dimension 2 is constant 32"):
        capture(build("clip-vision"), dynamic={"pixel_values": {0: "batch", 2: "height"}})


def test_static_on_request() -> None:
    program = capture(Scaled(), {"x": torch.randn(3, 4)}, dynamic=False)
    assert program.inputs[0].dims == (3, 4)


def test_a_batch_of_one_is_no_reason_to_freeze_the_batch() -> None:
    program = capture(Scaled(), {"x": torch.randn(1, 5, 4)})
    assert all(isinstance(d, str) for d in program.inputs[0].dims[:2])


def test_an_input_may_be_left_out_only_where_that_was_proved() -> None:
    bert = {spec.name: spec.default for spec in capture(build("bert")).inputs}
    assert bert == {"input_ids": None, "attention_mask": 1, "token_type_ids": 0}
    assert capture(Scaled(), {"x": torch.randn(2, 4), "scale": torch.ones(4)}).inputs[1].default is None


def test_a_cache_that_is_not_returned_is_said() -> None:
    program = capture(build("gpt2"))
    assert program.constants == {"use_cache": False}
    assert "capture: use_cache=False is fixed" in [str(note) for note in program.notes]


def test_a_data_dependent_branch_is_refused_with_its_source_line() -> None:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:
                return x
            return -x

    with pytest.raises(CaptureError) as caught:
        capture(Branch(), {"x": torch.randn(2, 3)})
    assert "test_capture.py:" in str(caught.value)
    assert "if x.sum() > 0:" in str(caught.value)


def test_an_assert_is_no_branch_though_questions_are_noted_on_their_way_to_torch() -> None:
    program = capture(op(asserting_without_words)(), {"x": torch.randn(2, 3)})
    assert not [str(note) for note in program.notes]  # nothing of strict=True, which transformers' exporter has not


class Nested(nn.Module):
    def forward(
        self, pair: tuple[torch.Tensor, torch.Tensor], more: dict[str, Any], factor: float = 1.0
    ) -> torch.Tensor:
        first, second = pair
        return (first + second) * more["scale"] * factor + more["parts"][0]


def _nested(rows: int = 2) -> dict[str, Any]:
    pair = (torch.randn(rows, 3), torch.randn(rows, 3))
    return {"pair": pair, "more": {"scale": torch.randn(3), "parts": [torch.randn(rows, 3), None]}}


def test_nested_inputs_are_named_tensors() -> None:
    program = capture(Nested(), {**_nested(), "factor": 2.0})
    assert [spec.name for spec in program.inputs] == ["pair.0", "pair.1", "more.scale", "more.parts.0"]
    assert program.constants == {"factor": 2.0}
    given = _nested(5)
    feed = {name: value.numpy() for name, value in flatten(given, program.nesting).items()}
    (got,) = TorchSession(program).run(feed)
    torch.testing.assert_close(torch.from_numpy(got), Nested()(**given, factor=2.0))


@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
def test_a_port_is_called_with_nested_inputs_as_the_original_is(engine: str, tmp_path: Path) -> None:
    model = Nested()
    port = paritas.port(model, engine=engine, inputs=_nested())
    given = _nested(4)
    torch.testing.assert_close(port(**given), model(**given))
    assert port.verify([given]).verdict == "agrees"
    assert port.verify().verdict == "agrees"
    port.save(tmp_path / "port")
    loaded = paritas.load(tmp_path / "port")
    torch.testing.assert_close(loaded(**given), model(**given))
    torch.testing.assert_close(loaded(**flatten(given, port.manifest.nesting)), model(**given))
    with pytest.raises(InputError, match=r"pair has other parts .* pair\.0, pair\.1 are expected, not pair\.0"):
        loaded(**{**given, "pair": given["pair"][:1]})


def test_inputs_of_other_kinds_are_refused_by_name() -> None:
    with pytest.raises(CaptureError, match=r"pair \(set\), more \(object\)"):
        capture(Nested(), {"pair": {torch.ones(2)}, "more": object()})


def test_a_plain_module_needs_inputs() -> None:
    with pytest.raises(InputsNeeded, match="is not a transformers model"):
        capture(Scaled())


def test_positional_examples_get_their_names() -> None:
    assert [spec.name for spec in capture(Scaled(), (torch.randn(2, 4), torch.ones(4))).inputs] == [
        "x",
        "scale",
    ]


def test_capture_leaves_the_model_as_it_was() -> None:
    model = build("t5")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = (model.config.use_cache, model.decoder.config.use_cache)
    capture(model)
    assert (model.config.use_cache, model.decoder.config.use_cache) == flags
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert "forward" not in vars(model)


class InstallsItsHook(Module):
    """Its first call installs what records in each, and keeps that it is there: transformers' hidden states."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not getattr(self, "installed", False):
            self.a.register_forward_hook(lambda module, args, output: self.seen.append(output))
            self.installed = True
        self.seen.clear()
        self.a(x)
        return torch.cat(self.seen) * len(self.seen)


def test_a_hook_that_a_forward_installs_once_is_gone_with_what_says_that_it_is_there() -> None:
    model, x = InstallsItsHook(a=nn.Linear(6, 6), seen=[]), torch.randn(2, 6)
    handle = model.a.register_forward_pre_hook(lambda module, args: None)
    capture(model, {"x": x})
    assert not model.a._forward_hooks and len(model.a._forward_pre_hooks) == 1
    handle.remove()
    assert not model.a._forward_pre_hooks


def test_a_capture_that_reasons_about_sizes_for_too_long_is_ended_and_says_why(monkeypatch) -> None:
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    from paritas.capture import time_limit

    own = ShapeEnv._maybe_evaluate_static
    monkeypatch.setattr(time_limit, "SECONDS", -1.0)
    with pytest.raises(CaptureError, match="more than -1 s"):
        capture(torch.nn.Conv1d(4, 4, 3), {"input": torch.ones(2, 4, 8)}, dynamic={"input": {0: "batch", 2: "length"}})
    assert ShapeEnv._maybe_evaluate_static is own


class Written(nn.Module):
    def __init__(self, add: float) -> None:
        super().__init__()
        self.add = add
        self.register_buffer("table", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.table = (self.table + self.add if self.add else self.table).to(x.device)
        return x * self.table


def test_a_buffer_that_is_set_to_itself_is_no_output_and_one_that_changes_is_refused() -> None:
    program = capture(Written(0.0), {"x": torch.ones(2, 4)})
    assert [spec.name for spec in program.outputs] == ["output"]
    with pytest.raises(CaptureError, match="writes to its buffers table"):
        capture(Written(1.0), {"x": torch.ones(2, 4)})


def test_layers_alike_have_one_note_of_their_fixed_sizes() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from paritas.making import inputs_for

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=32))
    notes = [note.text for note in capture(model, inputs_for(model, "text-generation-with-past", None)).notes]
    fixed = [text for text in notes if "the model does not leave it free" in text]
    assert len(fixed) == 4
    assert "past_key_values.*.keys (3 inputs) dimension 1 is fixed at 2: the model does not leave it free" in fixed
