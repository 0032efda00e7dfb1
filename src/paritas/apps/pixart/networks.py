# SPDX-License-Identifier: Apache-2.0
"""The small model's networks, all of them diffusers' and transformers' own classes, and its tokenizer, made in code."""

from __future__ import annotations

from typing import Any

import torch

from paritas.apps.pixart.scenes import SIZE, WORDS

LATENTS = SIZE // 8  # rows and columns of the latents
TEXT_WIDTH = 64
LONGEST = 32  # tokens of a caption in training, more than any has


def tokenizer() -> Any:
    """A `T5Tokenizer` that knows the words of captions whole and others by their letters."""
    from transformers import T5Tokenizer

    letters = [chr(code) for code in range(33, 127)]
    pieces = [(word, 0.0) for word in ("<pad>", "</s>", "<unk>")]
    pieces += [(f"▁{word}", -2.0) for word in WORDS]
    # A word made of letters is always less probable than a word that is known.
    pieces += [("▁", -10.0), *((letter, -10.0) for letter in letters)]
    return T5Tokenizer(pieces, model_max_length=120, extra_ids=0)


def text_encoder(vocabulary: int) -> Any:
    """A `T5EncoderModel` of two layers. Its weights are random."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=vocabulary, d_model=TEXT_WIDTH, d_kv=16, num_heads=4, d_ff=192, num_layers=2, dropout_rate=0.0,
        feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return T5EncoderModel(config)


def autoencoder() -> Any:
    """An `AutoencoderKL`: eight pixels to a latent of three channels. Its weights are random."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=3,
        block_out_channels=(16, 16, 32, 48),
        layers_per_block=1,
        norm_num_groups=1,
        sample_size=SIZE,
        mid_block_add_attention=False,  # what is trained on parts of pictures serves all sizes
    )


def transformer(width: int = 128, layers: int = 6, heads: int = 4) -> Any:
    """A `PixArtTransformer2DModel` that predicts the picture itself, in 64 tokens. Its weights are random."""
    from diffusers import PixArtTransformer2DModel

    return PixArtTransformer2DModel(
        num_attention_heads=heads, attention_head_dim=width // heads, in_channels=3, out_channels=3, num_layers=layers,
        cross_attention_dim=width, sample_size=LATENTS, patch_size=4, caption_channels=TEXT_WIDTH, norm_num_groups=1,
    )  # fmt: skip


def noise_schedule() -> Any:
    """What training adds noise by; `prediction_type` and betas are those of the shipped scheduler too."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear", prediction_type="sample")


def tokens(words: Any, captions: list[str], length: int = LONGEST) -> tuple[torch.Tensor, torch.Tensor]:
    """int64 [captions, length] twice: ids, and which of them are no padding. words: the tokenizer."""
    found = words(captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return found["input_ids"], found["attention_mask"]
