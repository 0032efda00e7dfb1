# SPDX-License-Identifier: Apache-2.0
"""What the core of drop-ins has to know of sentence-transformers."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from sentence_transformers.base.model import BaseModel
from sentence_transformers.base.modules import InputModule

import paritas.transformers.library  # noqa: F401 - what is inside is its models
from paritas.dropin.library import Library, register

_FAMILIES = ("sentence_transformer", "cross_encoder", "sparse_encoder", "multi_vector_encoder")

#: Of a model, what its forward looks at beside its modules.
_OF_MODEL = {"module_kwargs", "training", "forward"}

#: Of a module that prepares its input, what is for that alone.
_OF_INPUT = frozenset({
    "tokenizer", "processor", "processing_kwargs", "track_media_counts", "tokenize_kwargs", "_prompt_length_mapping",
    "_processor", "_method_signature_cache", "_query_expansion",
})  # fmt: skip


def aside(module: Any) -> Set[str]:
    """Attributes that a forward does not look at: prompts, cards, tokenizers."""
    if isinstance(module, BaseModel):
        return vars(module).keys() - _OF_MODEL
    return _OF_INPUT if isinstance(module, InputModule) else frozenset()


register(
    Library(
        "sentence_transformers",
        models=("sentence_transformers.base.modules", *(f"sentence_transformers.{one}.modules" for one in _FAMILIES)),
        bases=(
            "sentence_transformers.base.model",
            *(f"sentence_transformers.{one}.{part}" for one in _FAMILIES for part in ("model", "fit_mixin")),
        ),
        aside=aside,
    )
)
