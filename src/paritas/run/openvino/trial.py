# SPDX-License-Identifier: Apache-2.0
"""Whether OpenVINO computes on this machine."""

from __future__ import annotations

import numpy as np
import openvino as ov
import openvino.opset16 as ops


def compute() -> None:
    """A product of two matrices. Raises what OpenVINO raises, and `AssertionError` for a wrong answer."""
    x = ops.parameter([2, 3], np.float32)
    product = ops.matmul(x, ops.constant(np.full((3, 4), 2, np.float32)), False, False)
    model = ov.Model([product], [x], "trial")
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    got = compiled(np.ones((2, 3), np.float32))[0]
    assert got.shape == (2, 4) and (got == 6).all(), got
