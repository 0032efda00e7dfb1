# SPDX-License-Identifier: Apache-2.0
"""Tokens and pictures for programs of MindSpore: what torch's code returns, as `mindspore.Tensor` and as arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from paritas.dropin.frameworks import back, to_torch

FRAMEWORK = "mindspore"


class Tokenizer:
    """A tokenizer that returns MindSpore's tensors; all else is the original's, which is `original`."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return back(self.original(*args, **kwargs), FRAMEWORK)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


class Transform:
    """A transform of pictures that returns an array [1, channels, height, width], of which a `Tensor` can be made."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def __call__(self, picture: Any) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = self.original(picture).unsqueeze(0).numpy()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)

    def __repr__(self) -> str:
        return repr(self.original)


def outward(value: Any) -> Any:
    """What a function of the namespace returns, for a program of MindSpore."""
    if isinstance(value, (tuple, list)) and any(callable(one) or isinstance(one, torch.Tensor) for one in value):
        return type(value)(map(outward, value))
    if isinstance(value, torch.Tensor):
        return back(value, FRAMEWORK)
    if isinstance(value, torch.nn.Module) and hasattr(value, "encode_image"):
        return value
    if hasattr(value, "transforms"):
        return Transform(value)
    return Tokenizer(value) if hasattr(value, "context_length") and callable(value) else value


def _inward(value: Any) -> Any:
    return value.original if isinstance(value, (Tokenizer, Transform)) else value


def for_mindspore(function: Callable[..., Any]) -> Callable[..., Any]:
    """That function, to be called with tensors of MindSpore and returning them."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        args, kwargs, _ = to_torch(tuple(map(_inward, args)), {name: _inward(v) for name, v in kwargs.items()})
        return outward(function(*args, **kwargs))

    return called
