# SPDX-License-Identifier: Apache-2.0
"""`x.data`, which torch.export takes for a constant."""

from __future__ import annotations

from typing import Any

import torch

from paritas.capture.patches import patch


@patch("detached", "torch.Tensor.data", upstream="torch 2.13, torch/_C/__init__.pyi, TensorBase.data")
def data_is_detached(original: Any) -> Any:
    """`x.data` is no operator, so that a graph would have a constant in its place; `x.detach()` is the same values."""
    own: Any = torch._C.TensorBase.data
    return property(lambda self: self.detach(), own.__set__, own.__delete__)
