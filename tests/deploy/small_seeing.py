# SPDX-License-Identifier: Apache-2.0
"""Small models of families that write about images, and their inputs as processors make them, without any file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers as hf

VOCABULARY, IMAGE, VIDEO = 120, 119, 118

#: Of a family: the model, and what makes inputs with so many images.
Family = tuple[Any, Callable[[int], dict[str, torch.Tensor]]]

_WIDTHS: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 0,
    "eos_token_id": 1, "pad_token_id": 2, **_WIDTHS,
}  # fmt: skip
_TOWER = {**_WIDTHS, "image_size": 16, "patch_size": 8}
_LARGE = {**_TOWER, "image_size": 32}
_PATCHES: dict[str, Any] = {
    "depth": 2, "num_heads": 4, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3,
    "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32,
}  # fmt: skip
_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
_INTERLEAVED = {**_ROPE, "mrope_interleaved": True, "partial_rotary_factor": 1.0}
_MARKS = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": 116, "vision_end_token_id": 117}


def _drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def _texts(counts: Sequence[int]) -> dict[str, torch.Tensor]:
    """A text with so many tokens of each image between its words."""
    generator = torch.Generator().manual_seed(1)
    found = [torch.randint(5, 100, (3,), generator=generator)]
    for count in counts:
        found += [torch.full((count,), IMAGE), torch.randint(5, 100, (3,), generator=generator)]
    ids = torch.cat(found)[None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _fixed(size: int, kinds: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Any:
    """Images of that size, of 4 tokens each. kinds: token_type_ids, of a model that takes them."""

    def make(images: int) -> dict[str, torch.Tensor]:
        found = _texts([4] * images)
        if kinds is not None:
            found["token_type_ids"] = kinds(found["input_ids"])
        return {**found, "pixel_values": _drawn(images, 3, size, size)} if images else found

    return make


def _llava() -> Family:
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**_TOWER), text_config=hf.LlamaConfig(**_TEXT), image_token_id=IMAGE,
        vision_feature_layer=-1,
    )  # fmt: skip
    return hf.LlavaForConditionalGeneration(config), _fixed(16)


def _vipllava() -> Family:
    config = hf.VipLlavaConfig(
        vision_config=hf.CLIPVisionConfig(**_TOWER), text_config=hf.LlamaConfig(**_TEXT), image_token_id=IMAGE,
        vision_feature_layers=[-1, -2],
    )  # fmt: skip
    return hf.VipLlavaForConditionalGeneration(config), _fixed(16)


def _aya_vision() -> Family:
    config = hf.AyaVisionConfig(
        vision_config=hf.SiglipVisionConfig(**_LARGE, vision_use_head=False), text_config=hf.CohereConfig(**_TEXT),
        image_token_id=IMAGE, downsample_factor=2, adapter_layer_norm_eps=1e-6, vision_feature_layer=-1,
    )  # fmt: skip
    return hf.AyaVisionForConditionalGeneration(config), _fixed(32)


def _gemma3() -> Family:
    config = hf.Gemma3Config(
        vision_config=hf.SiglipVisionConfig(**_LARGE, vision_use_head=False),
        text_config=hf.Gemma3TextConfig(head_dim=8, sliding_window=6, sliding_window_pattern=2, **_TEXT),
        image_token_id=IMAGE, mm_tokens_per_image=4, boi_token_id=117, eoi_token_id=118,
    )  # fmt: skip
    return hf.Gemma3ForConditionalGeneration(config), _fixed(32, lambda ids: (ids == IMAGE).long())


def _paligemma() -> Family:
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(**_TOWER, vision_use_head=False),
        text_config=hf.Gemma2Config(head_dim=8, sliding_window=6, **_TEXT), image_token_id=IMAGE, projection_dim=32,
        hidden_size=32,
    )  # fmt: skip
    return hf.PaliGemmaForConditionalGeneration(config), _fixed(16, torch.zeros_like)


def _internvl() -> Family:
    vision = hf.InternVLVisionConfig(**{**_LARGE, "image_size": [32, 32], "patch_size": [8, 8]})
    config = hf.InternVLConfig(
        vision_config=vision, text_config=hf.Qwen2Config(**_TEXT), image_token_id=IMAGE, downsample_ratio=0.5
    )
    return hf.InternVLForConditionalGeneration(config), _fixed(32)


def _patches(images: int) -> dict[str, torch.Tensor]:
    """Images of two sizes, as patches."""
    grid = torch.tensor([[1, 4, 6], [1, 2, 4]][:images]).reshape(-1, 3)
    found = _texts((grid.prod(-1) // 4).tolist())
    found["mm_token_type_ids"] = (found["input_ids"] == IMAGE).int()
    if not images:
        return found
    return {**found, "pixel_values": _drawn(int(grid.prod(-1).sum()), 96), "image_grid_thw": grid}


def _qwen2_vl() -> Family:
    vision = {**_PATCHES, "embed_dim": 32, "mlp_ratio": 2}
    config = hf.Qwen2VLConfig(vision_config=vision, text_config={**_TEXT, "rope_parameters": _ROPE}, **_MARKS)
    return hf.Qwen2VLForConditionalGeneration(config), _patches


def _qwen2_5_vl() -> Family:
    vision = {**_PATCHES, "window_size": 16, "fullatt_block_indexes": [1]}
    config = hf.Qwen2_5_VLConfig(vision_config=vision, text_config={**_TEXT, "rope_parameters": _ROPE}, **_MARKS)
    return hf.Qwen2_5_VLForConditionalGeneration(config), _patches


def _qwen3_vl() -> Family:
    vision = {**_PATCHES, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    text = {**_TEXT, "head_dim": 8, "rope_parameters": _INTERLEAVED}
    return hf.Qwen3VLForConditionalGeneration(
        hf.Qwen3VLConfig(vision_config=vision, text_config=text, **_MARKS)
    ), _patches


def _qwen3_vl_moe() -> Family:
    vision = {**_PATCHES, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    text = {**_TEXT, **experts, "head_dim": 8, "rope_parameters": _INTERLEAVED}
    config = hf.Qwen3VLMoeConfig(vision_config=vision, text_config=text, **_MARKS)
    return hf.Qwen3VLMoeForConditionalGeneration(config), _patches


def _qwen3_5() -> Family:
    linear = {
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "layer_types": ["linear_attention", "full_attention"],
    }  # fmt: skip
    text = {**_TEXT, **linear, "head_dim": 8, "rope_parameters": _INTERLEAVED}
    config = hf.Qwen3_5Config(vision_config={**_PATCHES, "num_position_embeddings": 16}, text_config=text, **_MARKS)
    return hf.Qwen3_5ForConditionalGeneration(config), _patches


def _glm4v() -> Family:
    vision = {name: value for name, value in _PATCHES.items() if name != "depth"}
    marks = {
        "image_start_token_id": 116,
        "image_end_token_id": 117,
        "video_start_token_id": 114,
        "video_end_token_id": 115,
    }
    text = {**_TEXT, "head_dim": 8, "rope_parameters": {**_ROPE, "partial_rotary_factor": 1.0}}
    config = hf.Glm4vConfig(
        vision_config={**vision, "depth": 2, "image_size": 16}, text_config=text, image_token_id=IMAGE,
        video_token_id=VIDEO, **marks,
    )  # fmt: skip
    return hf.Glm4vForConditionalGeneration(config), _patches


def _tiles_of_rows(images: int) -> dict[str, torch.Tensor]:
    """Images as tiles of each text; a part of the second is padding."""
    found = _texts([4] * images)
    if not images:
        return found
    seen = torch.ones(1, images, 32, 32, dtype=torch.int64)
    seen[:, 1:, 16:] = 0
    return {**found, "pixel_values": _drawn(1, images, 3, 32, 32), "pixel_attention_mask": seen}


def _smolvlm() -> Family:
    config = hf.SmolVLMConfig(
        vision_config=hf.SmolVLMVisionConfig(**_LARGE), text_config=hf.LlamaConfig(**_TEXT), image_token_id=IMAGE,
        scale_factor=2,
    )  # fmt: skip
    return hf.SmolVLMForConditionalGeneration(config), _tiles_of_rows


def _idefics3() -> Family:
    config = hf.Idefics3Config(
        vision_config=hf.Idefics3VisionConfig(**_LARGE), text_config=hf.LlamaConfig(**_TEXT), image_token_id=IMAGE,
        scale_factor=2,
    )  # fmt: skip
    return hf.Idefics3ForConditionalGeneration(config), _tiles_of_rows


def _of_any_size(
    model: Any, tiles: Sequence[int] = (3,), more: Callable[[int], dict[str, torch.Tensor]] | None = None
) -> Any:
    """Images of two sizes as tiles of one; the model itself says of how many tokens each is."""

    def make(images: int) -> dict[str, torch.Tensor]:
        if not images:
            return _texts([])
        pixels = {
            "pixel_values": _drawn(images, *tiles, 3, *([16, 16] if tiles else [48, 64])),
            "image_sizes": torch.tensor([[20, 30], [30, 14]] if tiles else [[48, 64], [32, 48]])[:images],
            **(more(images) if more else {}),
        }
        with torch.no_grad():
            counts = [len(one) for one in model.get_image_features(**pixels, return_dict=True).pooler_output]
        return {**_texts(counts), **pixels}

    return make


def _llava_next() -> Family:
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**_TOWER), text_config=hf.LlamaConfig(**_TEXT), image_token_id=IMAGE,
        image_grid_pinpoints=[[16, 32], [32, 16]], vision_feature_layer=-1,
    )  # fmt: skip
    model = hf.LlavaNextForConditionalGeneration(config)
    return model, _of_any_size(model)


def _llava_onevision() -> Family:
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**_TOWER, vision_use_head=False), text_config=hf.Qwen2Config(**_TEXT),
        image_token_id=IMAGE, video_token_id=VIDEO, image_grid_pinpoints=[[16, 32], [32, 16]], vision_feature_layer=-1,
    )  # fmt: skip
    model = hf.LlavaOnevisionForConditionalGeneration(config)
    return model, _of_any_size(model, more=lambda images: {"batch_num_images": torch.ones(images, dtype=torch.int64)})


def _mistral3() -> Family:
    config = hf.Mistral3Config(
        vision_config=hf.PixtralVisionConfig(**_LARGE), text_config=hf.MistralConfig(**_TEXT), image_token_id=IMAGE,
        spatial_merge_size=2, vision_feature_layer=-1,
    )  # fmt: skip
    model = hf.Mistral3ForConditionalGeneration(config)
    return model, _of_any_size(model, tiles=())


def _mllama() -> Family:
    own: Any = hf.models.mllama.configuration_mllama
    vision = own.MllamaVisionConfig(
        hidden_size=32, attention_heads=4, num_hidden_layers=2, num_global_layers=1, intermediate_size=48,
        vision_output_dim=64, image_size=16, patch_size=8, intermediate_layers_indices=[1], max_num_tiles=2,
        supported_aspect_ratios=[[1, 1], [1, 2], [2, 1]],
    )  # fmt: skip
    text = own.MllamaTextConfig(cross_attention_layers=[1], **_TEXT)
    model = hf.MllamaForConditionalGeneration(hf.MllamaConfig(vision_config=vision, text_config=text))
    return model, _fixed(16)


#: Family, as its configuration calls it -> what makes it.
FAMILIES: dict[str, Callable[[], Family]] = {
    "llava": _llava, "vipllava": _vipllava, "aya_vision": _aya_vision, "gemma3": _gemma3, "paligemma": _paligemma,
    "internvl": _internvl, "qwen2_vl": _qwen2_vl, "qwen2_5_vl": _qwen2_5_vl, "qwen3_vl": _qwen3_vl,
    "qwen3_vl_moe": _qwen3_vl_moe, "qwen3_5": _qwen3_5, "glm4v": _glm4v, "smolvlm": _smolvlm, "idefics3": _idefics3,
    "llava_next": _llava_next, "llava_onevision": _llava_onevision, "mistral3": _mistral3, "mllama": _mllama,
}  # fmt: skip


def family(name: str) -> Family:
    """With weights that are large enough for tokens to be no accident of rounding."""
    torch.manual_seed(0)
    model, make = FAMILIES[name]()
    model = model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model, make
