# SPDX-License-Identifier: Apache-2.0
"""Small pipelines of random weights, made in code: nothing is read from a hub."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
import transformers

#: On which what holds of every engine is tested: daily on the first.
ENGINES = ["openvino", pytest.param("mindspore", marks=pytest.mark.slow)]


def tokenizer() -> Any:
    """CLIP's, of the 256 bytes alone: as other programs need them all."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    ids = {word: index for index, word in enumerate(words)}
    made = transformers.CLIPTokenizer(vocab=ids, merges=[])
    made.model_max_length = 12
    return made


def parts(seed: int = 0) -> dict[str, Any]:
    """The components of a Stable Diffusion pipeline for pictures of 16 by 16."""
    torch.manual_seed(seed)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=4,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    config = transformers.CLIPTextConfig(
        vocab_size=514, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=12, bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    return {
        "unet": unet.eval(),
        "vae": vae.eval(),
        "text_encoder": transformers.CLIPTextModel(config).eval(),
        "tokenizer": tokenizer(),
        "scheduler": diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        "safety_checker": None,
        "feature_extractor": None,
    }


def stable_diffusion(seed: int = 0) -> Any:
    made = diffusers.StableDiffusionPipeline(**parts(seed), requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made
