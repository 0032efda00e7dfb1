# SPDX-License-Identifier: Apache-2.0
"""Tiny checkpoints of random weights, written into a directory, for `community.py`: nothing is read from a hub.

Pictures are 64 by 64: community pipelines divide sizes by 8.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import PIL.Image
import torch
import transformers

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def woken(model: Any) -> Any:
    """As if trained: norms and biases of their own, and nothing that is zero, so that each part of it matters."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1 or not parameter.any():
                parameter.add_(torch.randn(parameter.shape) * 0.05)
    return model.eval()


def tokenizer(length: int = 77) -> Any:
    """CLIP's, of the 256 bytes alone."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    made = transformers.CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[])
    made.model_max_length = length
    return made


def text_encoder(hidden: int = 16, cls: Any = transformers.CLIPTextModel, layers: int = 2, **more: Any) -> Any:
    config = {"vocab_size": 514, "hidden_size": hidden, "intermediate_size": 24, "num_attention_heads": 2}
    ends = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    config |= {"num_hidden_layers": layers, "projection_dim": hidden, **ends, **more}
    return woken(cls(transformers.CLIPTextConfig(**config)))


def vae(**more: Any) -> Any:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    sizes = {"block_out_channels": (8,) * 4, "latent_channels": 4, "norm_num_groups": 4, "sample_size": 64}
    return woken(diffusers.AutoencoderKL(**{**blocks, **sizes, **more}))


def unet(**more: Any) -> Any:
    blocks = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
    blocks |= {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
    sizes = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16)}
    sizes |= {"layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 16, "attention_head_dim": 4}
    return woken(diffusers.UNet2DConditionModel(**{**blocks, **sizes, **more}))


def ddim(**more: Any) -> Any:
    return diffusers.DDIMScheduler(**{**BETAS, "steps_offset": 1, "clip_sample": False, **more})


def stable_diffusion(folder: Path, seed: int = 0, scheduler: Any = None, **unets: Any) -> None:
    torch.manual_seed(seed)
    made = diffusers.StableDiffusionPipeline(
        vae=vae(), text_encoder=text_encoder(), tokenizer=tokenizer(), unet=unet(**unets),
        scheduler=scheduler or ddim(),
        safety_checker=None, feature_extractor=None, image_encoder=None, requires_safety_checker=False,
    )  # fmt: skip
    made.save_pretrained(folder)


def stable_diffusion_xl(folder: Path, seed: int = 0, sample_size: int = 8) -> None:
    torch.manual_seed(seed)
    network = unet(
        cross_attention_dim=32, addition_embed_type="text_time", addition_time_embed_dim=8, sample_size=sample_size,
        projection_class_embeddings_input_dim=64, transformer_layers_per_block=1, use_linear_projection=True,
    )  # fmt: skip
    words = {"vocab_size": 49408}  # some files write the numbers of CLIP's own tokens
    second = text_encoder(cls=transformers.CLIPTextModelWithProjection, **words)
    made = diffusers.StableDiffusionXLPipeline(
        vae=vae(), text_encoder=text_encoder(**words), text_encoder_2=second,
        tokenizer=tokenizer(), tokenizer_2=tokenizer(),
        unet=network, scheduler=diffusers.EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
    )  # fmt: skip
    made.save_pretrained(folder)


def unconditional(folder: Path, seed: int = 0, scheduler: Any = None, **more: Any) -> None:
    torch.manual_seed(seed)
    sizes = {"sample_size": 16, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    network = diffusers.UNet2DModel(**{**sizes, **blocks, "attention_head_dim": 4, **more})
    cls = diffusers.DDIMPipeline if scheduler is None else diffusers.DDPMPipeline
    cls(woken(network), scheduler or diffusers.DDIMScheduler()).save_pretrained(folder)


def unclip(folder: Path, from_images: bool, seed: int = 0) -> dict[str, Any]:
    """Returns UnCLIPTextProjModel, which diffusers no longer finds by the index."""
    from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel

    torch.manual_seed(seed)
    down, up = (
        ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    )
    decoder = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=3, out_channels=6, down_block_types=down, up_block_types=up, layers_per_block=1,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", block_out_channels=(8, 16), cross_attention_dim=24,
        attention_head_dim=4, resnet_time_scale_shift="scale_shift", class_embed_type="identity", norm_num_groups=4,
    ).eval()  # fmt: skip

    def larger() -> Any:
        return diffusers.UNet2DModel(
            sample_size=16, in_channels=6, out_channels=3, layers_per_block=1, block_out_channels=(8, 16),
            down_block_types=("ResnetDownsampleBlock2D",) * 2, up_block_types=("ResnetUpsampleBlock2D",) * 2,
            norm_num_groups=4, attention_head_dim=4,
        ).eval()  # fmt: skip

    def scheduler(kind: str, prediction: str, **more: Any) -> Any:
        return diffusers.UnCLIPScheduler(variance_type=kind, prediction_type=prediction, **more)

    parts: dict[str, Any] = {
        "decoder": decoder,
        "text_encoder": text_encoder(cls=transformers.CLIPTextModelWithProjection),
        "tokenizer": tokenizer(),
        "text_proj": UnCLIPTextProjModel(clip_embeddings_dim=16, time_embed_dim=32, cross_attention_dim=24).eval(),
        "super_res_first": larger(),
        "super_res_last": larger(),
        "decoder_scheduler": scheduler("learned_range", "epsilon"),
        "super_res_scheduler": scheduler("fixed_small_log", "epsilon"),
    }
    if from_images:
        parts |= {"feature_extractor": image_processor(), "image_encoder": image_encoder()}
        diffusers.UnCLIPImageVariationPipeline(**parts).save_pretrained(folder)
        return _indexed(folder, parts)
    parts["prior"] = prior()
    parts["prior_scheduler"] = scheduler("fixed_small_log", "sample", clip_sample_range=5.0)
    diffusers.UnCLIPPipeline(**parts).save_pretrained(folder)
    return _indexed(folder, parts)


def _indexed(folder: Path, parts: dict[str, Any]) -> dict[str, Any]:
    """The index would name a class in a pipeline's own folder, from which diffusers loads no more."""
    index = json.loads((folder / "model_index.json").read_text())
    del index["text_proj"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return {"text_proj": parts["text_proj"]}


def prior() -> Any:
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "embedding_dim": 16, "num_layers": 1}
    return woken(diffusers.PriorTransformer(**sizes, num_embeddings=77))


def image_variation(folder: Path, image_size: int = 32, **unets: Any) -> None:
    torch.manual_seed(6)
    made = diffusers.StableDiffusionImageVariationPipeline(
        vae=vae(), image_encoder=image_encoder(image_size), unet=unet(**unets), scheduler=ddim(), safety_checker=None,
        feature_extractor=image_processor(image_size), requires_safety_checker=False,
    )  # fmt: skip
    made.save_pretrained(folder)


def image_processor(size: int = 32) -> Any:
    return transformers.CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def image_encoder(size: int = 32) -> Any:
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, projection_dim=16, num_hidden_layers=2, num_attention_heads=2,
        image_size=size, patch_size=size // 4,
    )  # fmt: skip
    return woken(transformers.CLIPVisionModelWithProjection(config))


def clip(seed: int = 1) -> Any:
    torch.manual_seed(seed)
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**vision, "vocab_size": 514, "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**vision, "image_size": 32, "patch_size": 8}, projection_dim=16
    )
    return woken(transformers.CLIPModel(config))


def speech() -> dict[str, Any]:
    """A Whisper that writes tokens of random weights, and its processor of 256 bytes."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    torch.manual_seed(2)
    special = [
        "<|endoftext|>",
        "<|startoftranscript|>",
        "<|en|>",
        "<|transcribe|>",
        "<|translate|>",
        "<|notimestamps|>",
    ]
    words = [*bytes_to_unicode().values(), *special]
    ids = {word: index for index, word in enumerate(words)}
    made = transformers.WhisperTokenizer(vocab=ids, merges=[])
    made.english_spelling_normalizer = {}
    config = transformers.WhisperConfig(
        vocab_size=len(ids), num_mel_bins=8, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_source_positions=50, pad_token_id=256,
        bos_token_id=256, eos_token_id=256, decoder_start_token_id=257, max_target_positions=32, suppress_tokens=None,
        begin_suppress_tokens=None,
    )  # fmt: skip
    model = woken(transformers.WhisperForConditionalGeneration(config))
    model.generation_config.update(suppress_tokens=None, begin_suppress_tokens=None, forced_decoder_ids=None)
    extractor = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    return {"speech_model": model, "speech_processor": transformers.WhisperProcessor(extractor, made)}


def image(size: int = 64, mode: str = "RGB", seed: int = 0) -> Any:
    coarse = np.random.RandomState(seed).randint(0, 256, (8, 8, 3)).astype("uint8")
    return PIL.Image.fromarray(coarse).resize((size, size), PIL.Image.Resampling.BICUBIC).convert(mode)


def mask(size: int = 64, mode: str = "L") -> Any:
    pixels = np.zeros((size, size), "uint8")
    pixels[size // 4 : size // 2, size // 4 :] = 255
    return PIL.Image.fromarray(pixels).convert(mode)
