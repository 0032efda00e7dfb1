# SPDX-License-Identifier: Apache-2.0
"""A small CLIP as files of every kind, its architecture by name, and a picture: no model is made for them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from paritas.open_clip import checkpoints

WIDTH, LAYERS, SIZE, PATCH, EMBED, WORDS, LENGTH = 64, 2, 32, 8, 32, 49408, 77

#: As open_clip's files of configurations have them.
TINY: dict[str, Any] = {
    "embed_dim": EMBED,
    "quick_gelu": True,
    "vision_cfg": {"image_size": SIZE, "layers": LAYERS, "width": WIDTH, "patch_size": PATCH},
    "text_cfg": {"context_length": LENGTH, "vocab_size": WORDS, "width": WIDTH, "heads": 1, "layers": LAYERS},
}

#: As SigLIP's: the loss has a bias, and a text is read from its last token.
SIGMOID: dict[str, Any] = {
    **TINY,
    "init_logit_bias": -10,
    "custom_text": True,
    "text_cfg": {**TINY["text_cfg"], "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
}

#: Architectures that the weights do not fit, or whose parts do not.
OTHERS: dict[str, Any] = {
    "wider": {**TINY, "text_cfg": {**TINY["text_cfg"], "width": 2 * WIDTH}},
    "shallow": {**TINY, **{part: {**TINY[part], "layers": 1} for part in ("vision_cfg", "text_cfg")}},
    "narrow": {**TINY, "embed_dim": 16},
    "heads": {**TINY, "text_cfg": {**TINY["text_cfg"], "heads": 3}},
    "unequal": {**TINY, "custom_text": True, "text_cfg": {**TINY["text_cfg"], "proj_type": "none"}},
}

SEVERAL: dict[str, Any] = {
    "embed_dim": 64,
    "custom_text": True,
    "vision_cfg": {**TINY["vision_cfg"], "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    "text_cfg": {**TINY["text_cfg"], "context_length": 76, "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {"context_length": 76, "vocab_size": WORDS, "width": 64, "heads": 2, "layers": LAYERS},
}


@functools.cache
def state() -> dict[str, torch.Tensor]:
    """A state of OpenAI's CLIP, whose values float16 holds."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int, scale: float = 0.2) -> torch.Tensor:
        return (scale * torch.randn(shape, generator=generator)).half().float()

    found = {
        "positional_embedding": drawn(LENGTH, WIDTH),
        "text_projection": drawn(WIDTH, EMBED),
        "logit_scale": torch.tensor(2.65625),
        "token_embedding.weight": drawn(WORDS, WIDTH),
        "ln_final.weight": 1 + drawn(WIDTH),
        "ln_final.bias": drawn(WIDTH),
        "visual.class_embedding": drawn(WIDTH),
        "visual.positional_embedding": drawn((SIZE // PATCH) ** 2 + 1, WIDTH),
        "visual.proj": drawn(WIDTH, EMBED),
        "visual.conv1.weight": drawn(WIDTH, 3, PATCH, PATCH),
    }
    for place in ("visual.ln_pre", "visual.ln_post"):
        found |= {f"{place}.weight": 1 + drawn(WIDTH), f"{place}.bias": drawn(WIDTH)}
    for tower in ("", "visual."):
        for layer in range(LAYERS):
            block = f"{tower}transformer.resblocks.{layer}"
            for norm in ("ln_1", "ln_2"):
                found |= {f"{block}.{norm}.weight": 1 + drawn(WIDTH), f"{block}.{norm}.bias": drawn(WIDTH)}
            for name, shape in {
                "attn.in_proj_weight": (3 * WIDTH, WIDTH),
                "attn.in_proj_bias": (3 * WIDTH,),
                "attn.out_proj.weight": (WIDTH, WIDTH),
                "attn.out_proj.bias": (WIDTH,),
                "mlp.c_fc.weight": (4 * WIDTH, WIDTH),
                "mlp.c_fc.bias": (4 * WIDTH,),
                "mlp.c_proj.weight": (WIDTH, 4 * WIDTH),
                "mlp.c_proj.bias": (WIDTH,),
            }.items():
                found[f"{block}.{name}"] = drawn(*shape)
    return found


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ViT-B-32.* with the weights, CLIP.png, and the architectures tiny, sigmoid, several, and some that do not fit."""
    from paritas import open_clip

    place = tmp_path_factory.mktemp("clip")
    for suffix in (".ckpt", ".safetensors", ".pt"):
        checkpoints.write(state(), place / f"ViT-B-32{suffix}")
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(place / "CLIP.png")
    named = {"tiny": TINY, "sigmoid": SIGMOID, "several": SEVERAL, "coca_several": SEVERAL, **OTHERS}
    for name, config in named.items():
        (place / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(place / f"{name}.json")
    return place
