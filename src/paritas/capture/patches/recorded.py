# SPDX-License-Identifier: Apache-2.0
"""Hidden states and attentions, which transformers records by hooks while a model runs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch

from paritas.capture.patches import around


@around
@contextlib.contextmanager
def recorded_in_this_thread() -> Iterator[None]:
    """transformers 5.23 records into one variable of the process while a model is exported: a model that runs in
    another thread would record there too. Dynamo alone needs that; torch.export runs Python, where each thread has
    its own."""
    recorders: Any = sys.modules.get("transformers.utils.output_capturing")
    own = getattr(recorders, "is_torchdynamo_compiling", None)
    if own is None:
        yield
        return
    recorders.is_torchdynamo_compiling = lambda: own() and torch.compiler.is_dynamo_compiling()
    try:
        yield
    finally:
        recorders.is_torchdynamo_compiling = own
