# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of transformers read MindSpore's tensors too, once `paritas.transformers` has been imported.

`tokenizer.batch_decode(model.generate(...))` is what every listing ends with, and transformers knows the tensors of
torch, NumPy, JAX and TensorFlow only. Nothing else of transformers is changed.
"""

from __future__ import annotations

import functools
from typing import Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from paritas.run.turns import turn
from paritas.run.values import framework_of_type


def teach_tokenizers() -> None:
    """Let `decode` and `batch_decode` take MindSpore tensors. Doing it again changes nothing."""
    for name in ("decode", "batch_decode"):
        own = getattr(PreTrainedTokenizerBase, name)
        if not hasattr(own, "_paritas"):
            setattr(PreTrainedTokenizerBase, name, _reading_mindspore(own))


def _reading_mindspore(own: Any) -> Any:
    @functools.wraps(own)
    def decode(self: Any, *args: Any, **kwargs: Any) -> Any:
        return own(self, *map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()})

    decode._paritas = True  # type: ignore[attr-defined]
    return decode


def _plain(value: Any) -> Any:
    if framework_of_type(type(value)) != "mindspore":
        return value
    with turn(computes=False):
        return value.asnumpy()
