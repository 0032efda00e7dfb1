# SPDX-License-Identifier: Apache-2.0
"""The models of the two documents' parity tables, at their real sizes: each is an entry as those of the zoo are.

The configurations are those of the checkpoints that the documents name, the inputs those of their examples; the
weights are seeded random ones, since nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from paritas.apps.published.figures import CLIP, ENCODERS
from paritas.apps.zoo.entries import Entry, entry_of

ENCODER_TABLE, CLIP_TABLE = "encoders", "clip"


@dataclasses.dataclass(frozen=True)
class Model:
    """A row of one of the documents' tables. `layers`: what in the configuration says how many there are."""

    entry: Entry
    table: str  # ENCODER_TABLE or CLIP_TABLE
    title: str
    #: Keys of `figures.ENCODERS` or `CLIP`: one architecture may be in two rows.
    published: tuple[Any, ...] = ()
    layers: tuple[str, ...] = ()  # () where a model is measured whole or not at all
    remark: str = ""
    cap: int = 0  # how many layers it has here, 0 for all of them

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def depth(self) -> int:
        """Layers of the longest part, where they can be capped."""
        return max((int(self.entry.config[key]) for key in self.layers), default=0)

    def capped(self, layers: int) -> Model:
        """The same model with at most so many layers in each part."""
        if not layers or layers >= self.depth:
            return self
        fewer = {key: min(layers, int(self.entry.config[key])) for key in self.layers}
        entry = dataclasses.replace(self.entry, config={**self.entry.config, **fewer})
        return dataclasses.replace(self, entry=entry, cap=layers)


def _ids(rows: Sequence[Sequence[int]], length: int = 0, pad: int = 0) -> dict[str, Any]:
    return {"data": [[*row, *[pad] * (length - len(row))] for row in rows], "dtype": "int64"}


#: "a photo of a cat", "a photo of a dog"; "a diagram", "a dog", "a cat": CLIP's tokens.
_PHOTOS = [[49406, 320, 1125, 539, 320, word, 49407] for word in (2368, 1929)]
_LABELS = [[49406, 320, word, 49407] for word in (22697, 1929, 2368)]
#: T5's: of an encoder's 15 tokens, of a decoder's 4, shifted; of FLAN-T5's 7 and 7, shifted.
_STUDIES = [[6536, 43, 118, 2008, 24, 293, 53, 3, 9, 1782, 19, 207, 21, 25, 1]]
_SHOW = [[0, 6536, 504, 24]]
_WALKS = [[37, 32099, 10681, 16, 32098, 2447, 1]]
_CUTE = [[0, 32099, 5295, 1782, 32098, 8, 32097]]

_WHOLE = {"output_hidden_states": {"py": True}}
_NO_CACHE = {"use_cache": {"py": False}}


def _encoder(
    name: str,
    model_class: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    title: str,
    *,
    layers: tuple[str, ...] = (),
    remark: str = "",
) -> Model:
    config_class = "T5Config" if model_class.startswith("T5") else "CLIPTextConfig"
    entry = entry_of(
        {
            "name": name, "model_type": "parity", "class": f"transformers.{model_class}",
            "config_class": f"transformers.{config_class}", "config": dict(config), "inputs": dict(inputs),
        }
    )  # fmt: skip
    return Model(entry, ENCODER_TABLE, title, (name,), layers, remark)


def _clip_text(width: int, layers: int, heads: int, act: str, projection: int) -> dict[str, Any]:
    return {
        "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "hidden_act": act, "projection_dim": projection,
    }  # fmt: skip


def _t5(width: int, inner: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    sizes = {"vocab_size": 32128, "d_model": width, "d_kv": 64, "d_ff": inner, "num_layers": layers}
    return {**sizes, "num_heads": heads, "decoder_start_token_id": 0, **more}


_GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_CLIP_L = _clip_text(768, 12, 12, "quick_gelu", 768)


def _clip(
    name: str,
    architecture: str,
    image: int,
    published: tuple[tuple[str, str, str], ...],
    *,
    layers: Mapping[str, int] | None = None,
) -> Model:
    config = {"architecture": architecture, **(layers or {})}
    inputs = {"image": {"shape": [1, 3, image, image], "dtype": "float32", "dist": "normal"}, "text": _ids(_LABELS, 77)}
    entry = entry_of(
        {
            "name": name, "model_type": "parity", "library": "open_clip",
            "class": "paritas.apps.published.open_clip_models:Clip", "config": config, "inputs": inputs,
        }
    )  # fmt: skip
    # Measured on RN50, float32 against float64: 8e-7 of the norm behind stage 1, 2e-6, 6e-6, 1.1e-5 behind stage 4.
    remark = "batch norms over random convolutions: each stage doubles what the one before has rounded"
    title = f"{architecture}, 1 x {image}, 3 x 77"
    about = remark if architecture.startswith("RN") else ""
    return Model(entry, CLIP_TABLE, title, published, tuple(layers or ()), about)


MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        _encoder(
            "openai/clip-vit-large-patch14", "CLIPTextModel", _CLIP_L, {"input_ids": _ids(_PHOTOS)},
            "CLIP ViT-L/14 text, 2 x 7",
        ),
        _encoder(
            "stabilityai/stable-diffusion-2-1", "CLIPTextModel", _clip_text(1024, 23, 16, "gelu", 512),
            {"input_ids": _ids(_PHOTOS, 77)}, "OpenCLIP ViT-H text, 23 layers, 2 x 77",
        ),
        _encoder(
            "stabilityai/stable-diffusion-xl-base-1.0(H)", "CLIPTextModel", _CLIP_L,
            {"input_ids": _ids(_PHOTOS, 77, 49407), **_WHOLE},
            "CLIP ViT-L text with all hidden states, 2 x 77",
            remark="the document calls it H; the checkpoint's first encoder is ViT-L",
        ),
        _encoder(
            "stabilityai/stable-diffusion-xl-base-1.0(bigG)", "CLIPTextModelWithProjection",
            _clip_text(1280, 32, 20, "gelu", 1280), {"input_ids": _ids(_PHOTOS, 77), **_WHOLE},
            "OpenCLIP bigG text with projection and all hidden states, 2 x 77",
        ),
        _encoder(
            "google-t5/t5-small", "T5Model", _t5(512, 2048, 6, 8),
            {"input_ids": _ids(_STUDIES), "decoder_input_ids": _ids(_SHOW), **_NO_CACHE},
            "T5-small, 1 x 15 and 1 x 4",
        ),
        _encoder(
            "DeepFloyd/t5-v1_1-xxl", "T5EncoderModel", _t5(4096, 10240, 24, 64, **_GATED),
            {"input_ids": _ids(_STUDIES)}, "T5-v1.1-XXL encoder, 1 x 15", layers=("num_layers",),
        ),
        _encoder(
            "google/flan-t5-large", "T5ForConditionalGeneration", _t5(1024, 2816, 24, 16, **_GATED),
            {"input_ids": _ids(_WALKS), "decoder_input_ids": _ids(_CUTE), **_NO_CACHE},
            "FLAN-T5-large, 1 x 7 and 1 x 7",
        ),
        _clip(
            "RN50 (OpenAI)", "RN50-quickgelu", 224,
            (("clip", "ResNet50", "OpenAI"), ("open_clip", "ResNet50", "OpenAI")),
        ),
        _clip("RN50 (YFCC)", "RN50", 224, (("open_clip", "ResNet50", "YFCC 15m"),)),
        _clip("RN50x64 (OpenAI)", "RN50x64-quickgelu", 448, (("open_clip", "ResNet50x64", "OpenAI"),)),
        _clip(
            "ViT-B-32 (OpenAI)", "ViT-B-32-quickgelu", 224,
            (("clip", "ViT-B-32", "OpenAI"), ("open_clip", "ViT-B-32", "OpenAI")),
        ),
        _clip("ViT-B-32 (LAION)", "ViT-B-32", 224, (("open_clip", "ViT-B-32", "laion2B"),)),
        _clip("ViT-H-14 (LAION)", "ViT-H-14", 224, (("open_clip", "ViT-H-14", "LAION 2B"),)),
        _clip(
            "ViT-bigG-14 (LAION)", "ViT-bigG-14", 224, (("open_clip", "ViT-bigG-14", "LAION 2B"),),
            layers={"image_layers": 48, "text_layers": 32},
        ),
    )
}  # fmt: skip


def published(model: Model, column: str) -> list[Any]:
    """What the documents have for this model: figures of a mode and dtype, or of an image encoder; [] for none."""
    if model.table == ENCODER_TABLE:
        return [ENCODERS[key][column] for key in model.published if column in ENCODERS[key]]
    return [CLIP[key] for key in model.published]
