# SPDX-License-Identifier: Apache-2.0
"""Whether MindSpore computes on this machine. Imported by its adapter only, once MindSpore is there."""

from __future__ import annotations

import types
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops


class _Product(nn.Cell):
    def construct(self, x: Any) -> Any:
        return ops.matmul(x, ops.ones((3, 4), x.dtype) * 2)


def compute(mindspore: types.ModuleType) -> None:
    """A product of two matrices in both modes. Raises what MindSpore raises, `AssertionError` for a wrong answer."""
    for mode in (mindspore.PYNATIVE_MODE, mindspore.GRAPH_MODE):
        mindspore.set_context(mode=mode)
        got = _Product()(ms.Tensor(np.ones((2, 3), np.float32))).asnumpy()
        assert got.shape == (2, 4) and (got == 6).all(), got
