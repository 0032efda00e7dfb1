# SPDX-License-Identifier: Apache-2.0
"""A method of a module as a module of its own, whose forward it is: so it is captured, called and kept as one."""

from __future__ import annotations

import functools
from typing import Any

import torch

from paritas.dropin.calls import original_class


class Method(torch.nn.Module):
    """`owner.called`. It is in the mode of its owner, and its weights are the owner's."""

    called: str

    def __init__(self, owner: torch.nn.Module) -> None:
        super().__init__()
        self.owner = owner
        self.training = owner.training

    def of(self, owner: torch.nn.Module) -> Method:
        """The same of another owner, a copy for one."""
        return method_of(owner, self.called)


def method_of(owner: torch.nn.Module, name: str) -> Method:
    """That method of a module as a module."""
    return _method_class(original_class(type(owner)), name)(owner)


@functools.cache
def _method_class(cls: Any, name: str) -> Any:
    @functools.wraps(getattr(cls, name))
    def forward(self: Method, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.owner, name)(*args, **kwargs)

    space = {"__module__": cls.__module__, "forward": forward, "called": name}
    return type(f"{cls.__name__}.{name}", (Method,), space)


def is_nested(module: torch.nn.Module) -> bool:
    """Whether there are modules in it."""
    return next(module.children(), None) is not None
