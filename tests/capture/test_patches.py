# SPDX-License-Identifier: Apache-2.0
"""Each patch: it applies, it changes no number of the eager model, it is undone, and the model is captured with it."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import transformers
from torch.utils._pytree import tree_leaves

import paritas
from paritas.capture import capture, patches
from paritas.pytree import describe_output
from paritas.run.torch.session import TorchSession


@dataclasses.dataclass(frozen=True)
class Example:
    """A tiny model of a patched family and what it is called with."""

    name: str
    config: dict[str, Any]
    inputs: Callable[[], dict[str, Any]]
    captured: bool = True  # on every day; the others' patches are applied then, and captured in the sweeps and the zoo


def _ids(*shape: int) -> torch.Tensor:
    return torch.randint(3, 120, shape, generator=torch.Generator().manual_seed(0))


def _values(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _padded(rows: int, length: int) -> torch.Tensor:
    mask = torch.ones(rows, length, dtype=torch.int64)
    mask[0, -5:] = 0
    return mask


def _windows() -> dict[str, torch.Tensor]:
    chosen = torch.zeros(2, 20, dtype=torch.int64)
    chosen[0, 0] = chosen[0, 7:9] = 1
    return {
        "input_ids": _ids(2, 20),
        "attention_mask": _padded(2, 20),
        "global_attention_mask": chosen,
    }


def _text_and_target() -> dict[str, torch.Tensor]:
    return {"input_ids": _ids(2, 16), "attention_mask": _padded(2, 16), "decoder_input_ids": _ids(2, 7)}


def _picture_and_text() -> dict[str, torch.Tensor]:
    mask = torch.ones(2, 32, 32, dtype=torch.int64)
    mask[0, 16:] = 0
    return {
        "input_ids": _ids(2, 12),
        "attention_mask": _padded(2, 12),
        "pixel_values": _values(2, 3, 32, 32),
        "pixel_mask": mask,
    }


def _document() -> dict[str, torch.Tensor]:
    corners = torch.rand(2, 16, 4, generator=torch.Generator().manual_seed(0)).sort(-1).values
    corners[1, 3] = 0.0
    picture = {"bbox": corners[..., [0, 1, 2, 3]], "pixel_values": _values(2, 3, 32, 32)}
    return {**_text_and_target(), **picture}


def _series() -> dict[str, torch.Tensor]:
    return {
        "past_values": _values(2, 11),
        "past_time_features": _values(2, 11, 2),
        "past_observed_mask": torch.ones(2, 11),
        "future_values": _values(2, 4),
        "future_time_features": _values(2, 4, 2),
    }


def _packed() -> dict[str, torch.Tensor]:
    return {"hidden_states": _values(48, 384), "grid_thw": torch.tensor([[1, 4, 4], [1, 8, 4]])}


TINY = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "hidden_size": 32}
LAYERS = {
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
}
WIDTHS = {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "d_model": 32}
MARKS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
T5_MARKS = {"pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": 1, "vocab_size": 120}
AUDIO = {"audio_channels": 1, "num_filters": 4, "num_residual_layers": 1, "upsampling_ratios": [4, 2]}
CODES = {"codebook_size": 16, "codebook_dim": 16}
SERIES = {"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2, 3], "num_time_features": 2}

EXAMPLES = [
    Example(
        "Qwen3NextModel",
        {
            "vocab_size": 120,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "intermediate_size": 48,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
        },
        lambda: {"input_ids": _ids(2, 12), "attention_mask": _padded(2, 12), "use_cache": False},
    ),
    Example(
        "JetMoeModel",
        {
            "vocab_size": 120,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "kv_channels": 8,
            "intermediate_size": 48,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
        lambda: {"input_ids": _ids(2, 12), "attention_mask": _padded(2, 12)},
    ),
    Example(
        "LongformerModel",
        {**TINY, "vocab_size": 120, "attention_window": [4, 6], "max_position_embeddings": 64},
        _windows,
    ),
    Example(
        "LEDModel",
        {
            **LAYERS,
            **WIDTHS,
            **MARKS,
            "vocab_size": 120,
            "attention_window": [4, 6],
            "max_encoder_position_embeddings": 64,
            "max_decoder_position_embeddings": 64,
        },
        lambda: {**_windows(), "decoder_input_ids": _ids(2, 7)},
        captured=False,
    ),
    Example(
        "NllbMoeModel",
        {
            **LAYERS,
            **WIDTHS,
            **MARKS,
            "vocab_size": 120,
            "num_experts": 4,
            "encoder_sparse_step": 2,
            "decoder_sparse_step": 2,
            "max_position_embeddings": 64,
        },
        _text_and_target,
        captured=False,
    ),
    Example(
        "SwitchTransformersModel",
        {
            **T5,
            **T5_MARKS,
            "num_sparse_encoder_layers": 1,
            "num_sparse_decoder_layers": 1,
            "num_experts": 4,
            "expert_capacity": 3,
        },
        _text_and_target,
        captured=False,
    ),
    Example(
        "UdopModel",
        {
            **T5,
            **T5_MARKS,
            "image_size": 32,
            "patch_size": 8,
            "relative_bias_args": [{"type": "1d"}, {"type": "horizontal"}, {"type": "vertical"}],
        },
        _document,
        captured=False,
    ),
    Example(
        "ViltForQuestionAnswering",
        {**TINY, "vocab_size": 120, "image_size": 32, "patch_size": 8},
        _picture_and_text,
        captured=False,
    ),
    Example(
        "FSMTModel",
        {
            **LAYERS,
            **WIDTHS,
            **MARKS,
            "langs": ["en", "de"],
            "src_vocab_size": 120,
            "tgt_vocab_size": 120,
            "max_position_embeddings": 64,
        },
        lambda: {**_text_and_target(), "use_cache": False},  # the mask is made for whole sequences only
        captured=False,
    ),
    Example("InformerModel", {**LAYERS, **WIDTHS, **SERIES}, _series, captured=False),
    Example(
        "MimiModel",
        {
            **AUDIO,
            **CODES,
            "hidden_size": 32,
            "vector_quantization_hidden_dimension": 16,
            "num_quantizers": 4,
            "num_semantic_quantizers": 1,
            "num_hidden_layers": 1,
            "intermediate_size": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 8,
            "upsample_groups": 32,
            "frame_rate": 12.5,
            "sampling_rate": 200,
        },
        lambda: {"input_values": _values(2, 1, 250)},
        captured=False,
    ),
    Example(
        "EncodecModel",
        {
            **AUDIO,
            **CODES,
            "hidden_size": 16,
            "num_lstm_layers": 1,
            "target_bandwidths": [1.5],
            "sampling_rate": 2400,
        },
        lambda: {"input_values": _values(2, 1, 250)},
        captured=False,
    ),
    Example(
        "EomtForUniversalSegmentation",
        {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 32}
        | {"patch_size": 8, "num_upscale_blocks": 1, "num_blocks": 1, "num_queries": 5},
        lambda: {"pixel_values": _values(2, 3, 32, 32)},
        captured=False,
    ),
    Example(
        "Aimv2TextModel",
        {**TINY, "vocab_size": 120, "max_position_embeddings": 40, "eos_token_id": 2},
        lambda: {"input_ids": _ids(2, 12), "attention_mask": torch.ones(2, 12, dtype=torch.int64)},
    ),
    Example(
        "models.glm_ocr.modeling_glm_ocr.GlmOcrVisionModel",
        {"depth": 2, "hidden_size": 64, "num_heads": 4, "image_size": 32, "patch_size": 8}
        | {"out_hidden_size": 64, "intermediate_size": 96, "initializer_range": 0.1},
        _packed,
    ),
]


def _build(example: Example) -> torch.nn.Module:
    module, _, name = f"transformers.{example.name}".rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    torch.manual_seed(0)
    return cls(cls.config_class(**example.config)).eval()


def _tensors(model: torch.nn.Module, inputs: dict[str, Any]) -> list[torch.Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        return [leaf for leaf in tree_leaves(model(**inputs)) if isinstance(leaf, torch.Tensor)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name.rpartition(".")[2])
def test_a_patch_applies_changes_no_number_and_is_undone(example: Example) -> None:
    model, inputs = _build(example), example.inputs()
    want = _tensors(model, inputs)
    places = [place for one in patches.patches() if (place := one.place()) is not None]
    before = [vars(owner).get(name) for owner, name in places]
    buffers = [list(module._buffers.items()) for module in model.modules()]
    with patches.applied(model) as used:
        got = _tensors(model, inputs)
    if "glm_ocr" not in example.name:  # whose patch mends the exporter, which does not run here
        assert used.remarks()
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert [vars(owner).get(name) for owner, name in places] == before
    for module, held in zip(model.modules(), buffers, strict=True):
        assert [name for name, _ in held] == list(module._buffers)
        assert all(module._buffers[name] is value for name, value in held)


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(one, marks=() if one.captured else pytest.mark.slow, id=one.name.rpartition(".")[2])
        for one in EXAMPLES
    ],
)
def test_a_patched_model_is_captured_and_computes_what_the_original_does(example: Example) -> None:
    model = _build(example)
    program = capture(model, example.inputs())
    with torch.no_grad():
        want, _ = describe_output(model(**{**program.constants, **example.inputs()}))
    got = TorchSession(program).run({name: value.numpy() for name, value in program.examples.items()})
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(torch.from_numpy(one), other, rtol=1e-5, atol=1e-5)
    assert any("patched while it was captured" in str(note) for note in program.notes)


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_bags_of_embeddings_are_rows_that_are_summed(mode: str) -> None:
    model = torch.nn.EmbeddingBag(20, 6, mode=mode).eval()
    ids = torch.randint(0, 20, (5, 3))
    program = capture(model, {"input": ids})
    (got,) = TorchSession(program).run({"input": ids.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), model(ids), rtol=1e-6, atol=1e-6)
    assert not any("embedding_bag" in str(node.target) for node in program.graph.nodes)


LONGFORMER = next(example for example in EXAMPLES if example.name == "LongformerModel")


def test_what_fails_inside_is_undone_too() -> None:
    model = _build(LONGFORMER)
    owner = transformers.models.longformer.modeling_longformer.LongformerSelfAttention
    before = vars(owner)["forward"]

    def fail() -> None:
        with patches.applied(model):
            assert vars(owner)["forward"] is not before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert vars(owner)["forward"] is before


def test_what_is_recorded_while_a_model_is_exported_is_recorded_in_its_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    collector: Any = transformers.utils.output_capturing._active_collector
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with patches.applied(torch.nn.Identity()), ThreadPoolExecutor() as other:
        token = collector.set({"hidden_states": []})
        assert collector.get() == {"hidden_states": []}
        assert other.submit(collector.get).result() is None
        collector.reset(token)
        assert collector.get() is None


def test_every_patch_says_why_and_where_the_original_is() -> None:
    for one in patches.patches():
        assert one.why.endswith("."), one
        assert one.upstream, one


def test_verification_finds_what_the_packed_attention_of_the_exporter_leaves_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    example = EXAMPLES[-1]
    equal = {**example.inputs(), "hidden_states": _values(32, 384), "grid_thw": torch.tensor([[1, 4, 4]] * 2)}
    model = _build(example)
    kept = tuple(one for one in patches.patches() if one.family != "packed attention")
    with monkeypatch.context() as without:
        without.setattr(patches, "patches", lambda: kept)
        report = paritas.port(model, engine="torch", inputs=equal).verify(level="outputs")
    assert report.verdict == "diverges", str(report)
    report = paritas.port(model, engine="torch", inputs=equal).verify(level="outputs")
    assert report.verdict == "agrees", str(report)
    assert any("the original takes none of the generated inputs" in note for note in report.notes)
