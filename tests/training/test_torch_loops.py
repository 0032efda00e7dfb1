# SPDX-License-Identifier: Apache-2.0
"""torch's loops train a model that MindSpore computes: the same gradients, the same curve, dropout and all."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as T
from side_by_side import Batch, both, furthest, train, worst_gradient

from families import CLIP_TEXT, CLIP_VISION, IDS, LAYERS, T5, TEXT, VISION

pytest.importorskip("mindspore")

Made = tuple[Any, list[Batch], dict[str, Any]]

GENERATOR = torch.Generator()


def _ids(*shape: int, high: int = 120) -> torch.Tensor:
    return torch.randint(2, high, shape, generator=GENERATOR)


def _padded(ids: torch.Tensor) -> torch.Tensor:
    mask = torch.ones_like(ids)
    mask[-1, -3:] = 0
    return mask


def bert() -> Made:
    model = T.BertForSequenceClassification(T.BertConfig(**TEXT, **LAYERS, max_position_embeddings=64, num_labels=3))
    ids = [_ids(4, 12) for _ in range(3)]
    return model, [{"input_ids": i, "attention_mask": _padded(i), "labels": i[:, 0] % 3} for i in ids], {}


def gpt2() -> Made:
    model = T.GPT2LMHeadModel(T.GPT2Config(vocab_size=120, n_embd=32, n_head=4, n_layer=2, n_positions=64, **IDS))
    ids = [_ids(2, 10) for _ in range(3)]
    return model, [{"input_ids": i, "labels": i.masked_fill(i > 100, -100)} for i in ids], {}


def t5() -> Made:
    model = T.T5ForConditionalGeneration(T.T5Config(**T5, decoder_start_token_id=0))
    ids = [_ids(2, 9) for _ in range(3)]
    return model, [{"input_ids": i, "attention_mask": _padded(i), "labels": i[:, :5].contiguous()} for i in ids], {}


def vit() -> Made:
    config = T.ViTConfig(**VISION, **LAYERS, num_labels=5, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    batches = [
        {"pixel_values": torch.randn(3, 3, 32, 32, generator=GENERATOR), "labels": _ids(3, high=5)} for _ in range(3)
    ]
    return T.ViTForImageClassification(config), batches, {}


def clip() -> Made:
    model = T.CLIPModel(T.CLIPConfig(text_config=CLIP_TEXT, vision_config=CLIP_VISION, projection_dim=24))
    batches = [
        {
            "input_ids": _ids(3, 8), "pixel_values": torch.randn(3, 3, 32, 32, generator=GENERATOR),
            "return_loss": True,
        }
        for _ in range(3)
    ]  # fmt: skip
    return model, batches, {}


def llama() -> Made:
    model = T.LlamaForCausalLM(T.LlamaConfig(**TEXT, **LAYERS, num_key_value_heads=2, attention_dropout=0.1, **IDS))
    ids = [_ids(2, 10) for _ in range(3)]
    return model, [{"input_ids": i, "labels": i} for i in ids], {}


def unet() -> Made:
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        dropout=0.1,
    )  # fmt: skip
    batches = [
        {"sample": torch.randn(2, 3, 8, 8, generator=GENERATOR), "timestep": _ids(2, high=1000)} for _ in range(3)
    ]
    return model, batches, {"loss": lambda out: (out.sample - 0.5).pow(2).mean()}


MODELS: list[Any] = [bert, *(pytest.param(one, marks=pytest.mark.slow) for one in (gpt2, t5, vit, clip, llama, unet))]


def _built(make: Callable[[], Made]) -> Made:
    torch.manual_seed(0)
    GENERATOR.manual_seed(0)
    model, batches, how = make()
    return model.train(), batches, how


@pytest.mark.parametrize("make", MODELS)
def test_gradients_and_curve_are_pytorch_s(make: Callable[[], Made]) -> None:
    model, batches, how = _built(make)
    want, got, exact = both(model, batches, 20, **how)
    error, whose = worst_gradient(want, got, exact)
    assert error <= 1e-5, whose
    assert furthest(want, got) <= 1e-3
    assert type(got.model).__name__ == type(model).__name__ and isinstance(got.model, type(model))


def test_a_gradient_that_is_off_is_seen() -> None:
    model, batches, _ = _built(bert)
    want = train(copy.deepcopy(model), batches, 1)
    model.classifier.weight.register_hook(lambda gradient: gradient * 1.001)
    error, whose = worst_gradient(want, train(model, batches, 1), want)
    assert error > 5e-4 and whose == "classifier.weight"
