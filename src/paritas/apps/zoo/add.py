# SPDX-License-Identifier: Apache-2.0
"""A new entry of the zoo: a class of transformers with its default configuration made tiny, and inputs that fit.

A configuration is shrunk by the names of its fields, which are the same in most of transformers; nested
configurations likewise. What comes out is run once, so that no entry is written that cannot be.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from paritas.apps.zoo.entries import Entry, find_class, write
from paritas.capture.inputs import example_inputs
from paritas.dtypes import dtype_name
from paritas.errors import ParitasError, ZooError

#: Field -> the largest value that a tiny model has for it. Fields that a configuration lacks are left alone.
_LARGEST = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "projection_dim", "emb_dim"), 64),
    **dict.fromkeys(("embedding_size", "word_embed_proj_dim", "encoder_hidden_size", "decoder_hidden_size"), 64),
    **dict.fromkeys(("intermediate_size", "d_ff", "ffn_dim", "n_inner", "encoder_ffn_dim", "decoder_ffn_dim"), 96),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 96),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"), 2),
    **dict.fromkeys(("decoder_layers", "num_decoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "num_key_value_heads"), 4),
    **dict.fromkeys(("head_dim", "d_kv", "attention_head_dim"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok",), 2),
    **dict.fromkeys(("vocab_size", "decoder_vocab_size"), 160),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_source_positions"), 128),
    **dict.fromkeys(("max_target_positions", "sliding_window"), 128),
    **dict.fromkeys(("image_size",), 32),
    **dict.fromkeys(("patch_size",), 8),
}

_LEAST_ID = 3  # below it are padding and its kin in most vocabularies


def entry_name(name: str) -> str:
    """ "bert/BertModel" for "transformers.BertModel"."""
    cls = find_class(name, name)
    config = getattr(cls, "config_class", None)
    if config is None:
        raise ZooError(f"{name} has no configuration class; write its entry by hand: see apps/zoo/entries.py.")
    return f"{config.model_type}/{cls.__name__}"


def add(name: str, directory: Path, config: Mapping[str, Any] | None = None) -> tuple[Entry, Path]:
    """Write an entry for the class `name` ("transformers.BertModel"), and return it and its file.

    config: values that the shrunk configuration is to have besides. Raises `ZooError` where the tiny model
    cannot be built or run, with the reason.
    """
    cls = find_class(name, name)
    title = entry_name(name)
    config_class = cls.config_class
    values = {**shrunk(config_class()), **(config or {})}
    entry = Entry(
        name=title,
        model_type=config_class.model_type,
        library=name.partition(".")[0],
        model_class=name,
        config_class=f"{config_class.__module__}:{config_class.__name__}",
        config=values,
        inputs={},
    )
    model = entry.model()
    try:
        inputs = {key: described(key, value) for key, value in example_inputs(model).items()}
    except ParitasError as error:
        raise ZooError(f"{title}: {error}") from error
    entry = Entry(**{**vars(entry), "inputs": inputs})
    try:
        with torch.no_grad():
            model(**entry.values())
    except Exception as error:
        raise ZooError(
            f"{title} does not run with its configuration shrunk: {type(error).__name__}: {error}. "
            "Its entry has to be written by hand: see apps/zoo/entries.py."
        ) from error
    return entry, write([entry], directory)


def shrunk(config: Any) -> dict[str, Any]:
    """The fields of a configuration that have to change for a tiny model; nested configurations as dicts."""
    found: dict[str, Any] = {}
    for field, value in vars(config).items():
        largest = _LARGEST.get(field)
        if hasattr(value, "model_type") and hasattr(value, "to_dict"):
            if inner := shrunk(value):
                found[field] = inner
        elif largest is not None and isinstance(value, int) and value > largest:
            found[field] = largest
    for field in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
        token = getattr(config, field, None)
        if "vocab_size" in found and isinstance(token, int) and token >= found["vocab_size"]:
            found[field] = min(_LEAST_ID - 1, 1)
    return found


def described(name: str, value: torch.Tensor) -> dict[str, Any]:
    """How an entry says such a tensor."""
    dtype = dtype_name(value.dtype)
    spec: dict[str, Any] = {"shape": list(value.shape), "dtype": dtype}
    if value.is_floating_point():
        return {**spec, "dist": "normal", "std": 1.0}
    low, high = int(value.min()), int(value.max())
    if low == high:
        return {**spec, "dist": "const", "value": low}
    return {**spec, "dist": "randint", "low": low, "high": high + 1}
