# SPDX-License-Identifier: Apache-2.0
"""Models of sentence-transformers with random weights, 16 wide, and the tokenizer of all-MiniLM-L6-v2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from paritas.capture.source import minilm_directory

TEXTS = [
    "It is raining.",
    "The sun is out over the hills, and nobody is there to see it shine.",
    "Rivers run to the sea",
    "a",
    "word " * 40,
]

WIDE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def save_transformer(directory: Path, kind: str = "BertModel", **config: Any) -> str:
    """A transformer and a tokenizer, as save_pretrained leaves them."""
    torch.manual_seed(0)
    made = transformers.BertConfig(vocab_size=30522, max_position_embeddings=128, **WIDE, **config)
    getattr(transformers, kind)(made).save_pretrained(directory)
    transformers.AutoTokenizer.from_pretrained(minilm_directory()).save_pretrained(directory)
    return str(directory)


def widened(model: Any) -> Any:
    """The same with weights that matter: random ones of transformers are so small that all texts are alike."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "embeddings.weight" in name or name.endswith(("query.weight", "key.weight", "value.weight")):
                weight.mul_(20)
    return model
