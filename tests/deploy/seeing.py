# SPDX-License-Identifier: Apache-2.0
"""Small models that write about images, with the tokenizer of bytes and what reads their images, as checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from tests.deploy.causal import SIZES, tokenizer_of_bytes

#: What surrounds the places of an image, what stands in each, and in each of a film.
_MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_PLAIN = ("", "", "<image>", "<video>")
_SOFT = ("<start_of_image>", "<end_of_image>", "<image_soft_token>", "<video>")
_TOWER = {
    "depth": 2,
    "num_heads": 4,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}


def _llava(size: int, image: int, **_: int) -> Any:
    vision = hf.CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=8
    )
    text = hf.LlamaConfig(vocab_size=size, **SIZES)
    config = hf.LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=image, vision_feature_layer=-1, pad_token_id=2
    )
    return hf.LlavaForConditionalGeneration(config)


def _qwen2_vl(size: int, **ids: int) -> Any:
    vision = {**_TOWER, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
    config = hf.Qwen2VLConfig(vision_config=vision, text_config=_text(size), **_named(ids))
    return hf.Qwen2VLForConditionalGeneration(config)


def _qwen2_5_vl(size: int, **ids: int) -> Any:
    vision = {**_TOWER, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32, "window_size": 16}
    config = hf.Qwen2_5_VLConfig(
        vision_config={**vision, "fullatt_block_indexes": [1]}, text_config=_text(size), **_named(ids)
    )
    return hf.Qwen2_5_VLForConditionalGeneration(config)


def _qwen3_vl(size: int, **ids: int) -> Any:
    vision = {
        **_TOWER,
        "hidden_size": 32,
        "intermediate_size": 48,
        "out_hidden_size": 32,
        "num_position_embeddings": 16,
    }
    text = {**_text(size), "head_dim": 8, "rope_parameters": {**_ROPE, "mrope_interleaved": True}}
    config = hf.Qwen3VLConfig(
        vision_config={**vision, "deepstack_visual_indexes": [0]}, text_config=text, **_named(ids)
    )
    return hf.Qwen3VLForConditionalGeneration(config)


def _gemma3(size: int, **ids: int) -> Any:
    vision = hf.SiglipVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8,
        vision_use_head=False,
    )  # fmt: skip
    text = hf.Gemma3TextConfig(vocab_size=size, head_dim=8, sliding_window=16, sliding_window_pattern=2, **SIZES)
    config = hf.Gemma3Config(
        vision_config=vision, text_config=text, image_token_id=ids["image"], boi_token_id=ids["start"],
        eoi_token_id=ids["end"], mm_tokens_per_image=4,
    )  # fmt: skip
    return hf.Gemma3ForConditionalGeneration(config)


def _text(size: int) -> dict[str, Any]:
    return {"vocab_size": size, "rope_parameters": _ROPE, **SIZES}


def _named(ids: dict[str, int]) -> dict[str, int]:
    names = {"start": "vision_start_token_id", "end": "vision_end_token_id", "image": "image_token_id"}
    return {name: ids[short] for short, name in {**names, "video": "video_token_id"}.items()}


#: Model -> what makes it, given the vocabulary's size and the ids of the marks of images.
MODELS: dict[str, Callable[..., Any]] = {
    "llava": _llava, "qwen2-vl": _qwen2_vl, "qwen2.5-vl": _qwen2_5_vl, "qwen3-vl": _qwen3_vl, "gemma3": _gemma3,
}  # fmt: skip

#: What surrounds images, of a model whose are no patches.
_OTHERS = {"llava": _PLAIN, "gemma3": _SOFT}


@dataclasses.dataclass(frozen=True)
class Seeing:
    """A model, and what makes inputs of texts and images. packed: images are patches, of any number. kinds: it is told
    which tokens are those of images."""

    model: Any
    tokenizer: Any
    images: Any
    packed: bool
    marks: tuple[str, str, str, str]
    kinds: bool = False

    def inputs(self, texts: Sequence[str], images: Sequence[np.ndarray] = ()) -> dict[str, torch.Tensor]:
        """In which each "[image]" of the texts is the marks of one image, padded on the left."""
        start, end, pad, _ = self.marks
        pixels = dict(self.images(images=list(images), return_tensors="pt")) if images else {}
        grids = pixels.get("image_grid_thw", torch.full((len(images), 1), 16)).prod(-1) // 4
        texts = list(texts)
        for count in grids.tolist():
            at = next(i for i, text in enumerate(texts) if "[image]" in text)
            texts[at] = texts[at].replace("[image]", start + pad * count + end, 1)
        made = dict(self.tokenizer(texts, return_tensors="pt", padding=True, padding_side="left"))
        made.pop("token_type_ids", None)
        pixels.pop("num_crops", None)
        if self.kinds:
            made["token_type_ids"] = (made["input_ids"] == self.tokenizer.convert_tokens_to_ids(pad)).long()
        if self.packed and images:
            made["mm_token_type_ids"] = (made["input_ids"] == self.tokenizer.convert_tokens_to_ids(pad)).int()
        return {**made, **pixels}


def seeing(name: str, directory: Path) -> Seeing:
    """A model of that name, saved to a directory with its tokenizer and what reads images."""
    tokenizer = tokenizer_of_bytes()
    packed = name not in _OTHERS
    around = _OTHERS.get(name, _MARKS)
    marks = [mark for mark in around if mark]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    known = tokenizer.convert_tokens_to_ids(marks)
    ids = dict(zip(("start", "end", "image", "video")[-len(marks) :], known, strict=True))
    torch.manual_seed(0)
    model = MODELS[name](len(tokenizer), **ids).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # so that tokens are no accident of rounding
            parameter.mul_(3)
    images: Any = (
        hf.Qwen2VLImageProcessorPil(
            patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 64, "longest_edge": 4096}
        )
        if packed
        else hf.Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
        if name == "gemma3"
        else hf.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    )
    if name == "llava":
        how = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
        hf.LlavaProcessor(images, tokenizer, image_token="<image>", **how).save_pretrained(directory)
    for part in (model, tokenizer, images):
        part.save_pretrained(directory)
    return Seeing(model, tokenizer, images, packed, around, kinds=name == "gemma3")


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3], of noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
