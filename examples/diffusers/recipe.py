# SPDX-License-Identifier: Apache-2.0
"""What the examples share: a command line, and a tiny Stable Diffusion of random weights where no model is given."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import PIL.Image
import torch
import transformers

import paritas
import paritas.diffusers


def main(
    draw: Callable[[Any], Any], about: str, pipeline: str = "StableDiffusionPipeline", inpaints: bool = False
) -> None:
    """Open MODEL with its networks on an engine, and save what `draw` makes with it."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a Stable Diffusion's name or directory; by default a tiny one")
    parser.add_argument("--engine", default=paritas.default_engine())
    parser.add_argument("--out", type=Path, default=Path("picture.png"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        model = given.model or tiny(Path(place), in_channels=9 if inpaints else 4)
        cls = getattr(paritas.diffusers, pipeline)
        pipe = cls.from_pretrained(model, safety_checker=None, engine=given.engine)
        drawn = draw(pipe)
    pictures = drawn if isinstance(drawn, list) else [drawn]
    for number, picture in enumerate(pictures):
        path = given.out if len(pictures) == 1 else given.out.with_stem(f"{given.out.stem}-{number}")
        picture.save(path)
        print(path)


def tiny(folder: Path, in_channels: int = 4, seed: int = 0) -> str:
    """A Stable Diffusion of random weights for pictures of 16 by 16, in a directory."""
    torch.manual_seed(seed)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=in_channels, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    config = transformers.CLIPTextConfig(
        vocab_size=514, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    made = diffusers.StableDiffusionPipeline(
        unet=unet.eval(), vae=vae.eval(), text_encoder=transformers.CLIPTextModel(config).eval(), tokenizer=letters(),
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    made.save_pretrained(folder)
    return str(folder)


def letters() -> Any:
    """CLIP's tokenizer, of single bytes."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    known = list(bytes_to_unicode().values())
    words = [*known, *(f"{letter}</w>" for letter in known), "<|startoftext|>", "<|endoftext|>"]
    made = transformers.CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[])
    made.model_max_length = 77
    return made


def photo(pipe: Any, seed: int = 0) -> PIL.Image.Image:
    """A picture of coloured blots, as large as the model draws."""
    blots = torch.randint(0, 256, (4, 4, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    size = pipe.unet.config.sample_size * pipe.vae_scale_factor
    return PIL.Image.fromarray(blots.numpy()).resize((size, size), PIL.Image.Resampling.BICUBIC)


def noise(seed: int = 7) -> torch.Generator:
    """Random numbers that are the same on every engine, as they are torch's."""
    return torch.Generator().manual_seed(seed)
