# SPDX-License-Identifier: Apache-2.0
"""Modules of sentence-transformers that look at values where they need not."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch

from paritas.capture.patches import around, patch


@patch(
    "sentences",
    "sentence_transformers.sentence_transformer.modules.pooling.Pooling._exclude_prompt_from_mask",
    upstream="sentence-transformers 6.2, sentence_transformer/modules/pooling.py",
)
def prompt_is_masked_in_every_row(original: Any) -> Any:
    """pooling without the prompt asks whether texts are padded on the left; behind no padding the same holds."""

    def excluded(attention_mask: torch.Tensor, prompt_length: int) -> torch.Tensor:
        begins = attention_mask.to(torch.int32).argmax(dim=1)
        positions = torch.arange(attention_mask.size(1), device=attention_mask.device).unsqueeze(0)
        return attention_mask.masked_fill(positions < (begins + prompt_length).unsqueeze(1), 0)

    return excluded


@around
@contextlib.contextmanager
def pooled_in_one_piece() -> Iterator[None]:
    """Splade's pooling goes through the tokens in pieces, by default in one, whose length `range` would fix."""
    module = sys.modules.get("sentence_transformers.sparse_encoder.modules.splade_pooling")
    if module is None:
        yield
        return

    def steps(start: Any, stop: Any, step: Any = 1) -> Any:
        return (start,) if isinstance(stop, torch.SymInt) and step is stop else range(start, stop, step)

    setattr(module, "range", steps)  # noqa: B010 - a name that type checkers do not know there
    try:
        yield
    finally:
        delattr(module, "range")
