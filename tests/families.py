# SPDX-License-Identifier: Apache-2.0
"""One tiny random model of every family, built in code: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import transformers as T
from transformers.models.whisper.modeling_whisper import WhisperEncoder

TEXT = {"vocab_size": 120, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
LAYERS = {"num_hidden_layers": 2}
T5 = {"vocab_size": 120, "d_model": 32, "d_ff": 48, "d_kv": 8, "num_heads": 4, "num_layers": 2}
VISION = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
}
IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
CLIP_TEXT = {**TEXT, **LAYERS, **IDS, "max_position_embeddings": 40, "projection_dim": 24}
CLIP_VISION = {**VISION, **LAYERS, "projection_dim": 24}


def _clip() -> torch.nn.Module:
    return T.CLIPModel(T.CLIPConfig(text_config=CLIP_TEXT, vision_config=CLIP_VISION, projection_dim=24))


def _whisper() -> torch.nn.Module:
    config = T.WhisperConfig(
        encoder_layers=2, decoder_layers=2, d_model=32, encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=16,
        encoder_attention_heads=4, decoder_attention_heads=4, max_source_positions=40, vocab_size=120, **IDS,
    )  # fmt: skip
    return WhisperEncoder(config)


FAMILIES: dict[str, Callable[[], torch.nn.Module]] = {
    "bert": lambda: T.BertModel(T.BertConfig(**TEXT, **LAYERS, max_position_embeddings=64)),
    "bert-mlm": lambda: T.BertForMaskedLM(T.BertConfig(**TEXT, **LAYERS, max_position_embeddings=64)),
    "mpnet": lambda: T.MPNetModel(T.MPNetConfig(**TEXT, **LAYERS, max_position_embeddings=64)),
    "clip-text": lambda: T.CLIPTextModel(T.CLIPTextConfig(**CLIP_TEXT)),
    "clip-text-projected": lambda: T.CLIPTextModelWithProjection(T.CLIPTextConfig(**CLIP_TEXT)),
    "clip-vision": lambda: T.CLIPVisionModel(T.CLIPVisionConfig(**CLIP_VISION)),
    "clip": _clip,
    "t5-encoder": lambda: T.T5EncoderModel(T.T5Config(**T5)),
    "t5": lambda: T.T5Model(T.T5Config(**T5, decoder_start_token_id=0)),
    "t5-lm": lambda: T.T5ForConditionalGeneration(T.T5Config(**T5, decoder_start_token_id=0)),
    "vit": lambda: T.ViTModel(T.ViTConfig(**VISION, **LAYERS)),
    "gpt2": lambda: T.GPT2Model(T.GPT2Config(vocab_size=120, n_embd=32, n_head=4, n_layer=2, n_positions=64, **IDS)),
    "gpt2-lm": lambda: T.GPT2LMHeadModel(
        T.GPT2Config(vocab_size=120, n_embd=32, n_head=4, n_layer=2, n_positions=64, **IDS)
    ),
    "llama": lambda: T.LlamaForCausalLM(T.LlamaConfig(**TEXT, **LAYERS, num_key_value_heads=2, **IDS)),
    "whisper-encoder": _whisper,
}


#: One of each kind is for every day; these are their relatives, for the sweeps.
RELATIVES = {
    "bert-mlm", "clip", "clip-text", "clip-text-projected", "clip-vision", "mpnet", "t5-encoder", "t5", "gpt2",
    "gpt2-lm",
}  # fmt: skip
KINDS = [pytest.param(f, marks=pytest.mark.slow) if f in RELATIVES else f for f in FAMILIES]


def build(family: str) -> torch.nn.Module:
    """The family's model with seeded weights. Everything random: also biases and norms, which start at 0 and 1."""
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model
