# SPDX-License-Identifier: Apache-2.0
"""Gradients by a port's inputs and weights: there are none, and whoever asks for them is told so instead of getting
zeros, or a head that learns while its body does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from paritas.errors import InputError


def asked_for(module: torch.nn.Module, tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """That by which somebody may differentiate: arguments by their names, and one of the weights for all of them."""
    if not torch.is_grad_enabled():
        return {}
    found = {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor) and value.requires_grad}
    weight = next((p for p in module.parameters() if p.requires_grad), None)
    return found if found or weight is None else {"its weights": weight}


def refusing(out: Any, by: Mapping[str, torch.Tensor], cls: type) -> Any:
    """`out` with tensors that require a gradient, as the original's do, and say that there is none when asked."""
    library = cls.__module__.partition(".")[0]
    message = (
        f"{cls.__name__} runs on an engine, and its port computes inference only: there is no gradient by "
        f"{', '.join(by)}. Take the class of {library} itself, or call model.train(): then PyTorch computes."
    )

    class NoGradient(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, value: torch.Tensor, *by: torch.Tensor) -> torch.Tensor:
            return value.view_as(value)

        @staticmethod
        def backward(context: Any, *gradients: Any) -> Any:
            raise InputError(message)

    def marked(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return NoGradient.apply(value, *by.values())
        if isinstance(value, dict):
            for key, inner in list(value.items()):
                value[key] = marked(inner)
            return value
        if type(value) in (tuple, list):
            return type(value)(map(marked, value))
        return value

    with torch.enable_grad():
        return marked(out)
