# SPDX-License-Identifier: Apache-2.0
"""A model's own code, computed in float64 throughout."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


class InFloat64(TorchFunctionMode):
    """Everything that a model computes in floats is computed in float64, also where its code names another dtype.

    A norm that casts to float32 would round there, and a difference of 1e-8 could be that or a fault. The weights
    and inputs have to be float64 already.
    """

    _CASTS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)

    def __enter__(self) -> InFloat64:
        self._default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.set_default_dtype(self._default)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._CASTS:
            return torch.Tensor.double(args[0])
        # `view(dtype)` reads bits, and autocast knows halves only.
        if func is torch.Tensor.view or "autocast" in getattr(func, "__name__", ""):
            return func(*args, **kwargs)
        args = [torch.float64 if any(a is f for f in _FLOATS) else a for a in args]
        kwargs = {k: torch.float64 if any(v is f for f in _FLOATS) else v for k, v in kwargs.items()}
        return func(*args, **kwargs)
