# SPDX-License-Identifier: Apache-2.0
"""Gradients by a port's inputs and weights: there are none, and whoever asks for them is told so instead of getting
zeros, or a head that learns while its body does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.autograd.forward_ad
import torch.utils._device

from paritas.errors import InputError


def asked_for(module: torch.nn.Module, tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """That by which somebody may differentiate: arguments by their names, and one of the weights for all of them."""
    if not torch.is_grad_enabled():
        return {}
    found = dict(requiring(tensors))
    weight = next((p for p in module.parameters() if p.requires_grad), None)
    return found if found or weight is None else {"its weights": weight}


def requiring(given: Mapping[Any, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors among these arguments, also in lists and dictionaries, by which a gradient may be asked for."""
    for name, value in given.items():
        if isinstance(value, torch.Tensor):
            if value.requires_grad:
                yield str(name), value
        elif isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", tensor) for inner, tensor in requiring(value))
        elif isinstance(value, (list, tuple)):
            yield from ((f"{name}.{inner}", tensor) for inner, tensor in requiring(dict(enumerate(value))))


def transformed() -> str:
    """Why a call is torch's own: it is differentiated forwards, or transformed as a function; "" for any other."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "PyTorch computes, since it is called inside a transformation of torch.func"
    if torch.autograd.forward_ad._current_level >= 0:
        return "PyTorch computes, since it may be differentiated forwards"
    modes = torch.overrides._get_current_function_mode_stack()
    modes = [one for one in modes if not isinstance(one, torch.utils._device.DeviceContext)]
    if modes or torch._C._len_torch_dispatch_stack():
        return "PyTorch computes, since somebody looks at every function that torch runs"
    return ""


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
