# SPDX-License-Identifier: Apache-2.0
"""MindSpore's mode for a while, and its tensors as arrays."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from typing import Any

import numpy as np


@contextlib.contextmanager
def in_mode(ms: types.ModuleType, mode: str) -> Iterator[None]:
    """MindSpore's mode is global: set for one call, and put back."""
    before, wanted = ms.get_context("mode"), ms.GRAPH_MODE if mode == "graph" else ms.PYNATIVE_MODE
    if before == wanted:
        yield
        return
    ms.set_context(mode=wanted)
    try:
        yield
    finally:
        ms.set_context(mode=before)


def to_numpy(value: Any) -> np.ndarray:
    """A tensor's values; of bfloat16, which NumPy has not, as float32."""
    array: np.ndarray = (value.float() if str(value.dtype) == "BFloat16" else value).asnumpy()
    return array
