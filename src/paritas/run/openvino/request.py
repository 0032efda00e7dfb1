# SPDX-License-Identifier: Apache-2.0
"""One inference of a compiled model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino


def infer(request: openvino.InferRequest, values: Mapping[Any, np.ndarray]) -> tuple[np.ndarray, ...]:
    """The outputs, as views that the next call overwrites. Raises `RuntimeError`.

    In a thread of the engine, which the caller waits for: computed in the caller's own thread, OpenVINO 2026.4's CPU
    plugin loses its turn to other processes, and a call of 1 ms takes 12 where the machine is busy.
    """
    request.start_async(values, share_inputs=True)
    request.wait()
    return tuple(tensor.data for tensor in request.output_tensors)
