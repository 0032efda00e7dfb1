# SPDX-License-Identifier: Apache-2.0
"""The Auto classes: the original finds class and weights, and the model that it returns runs on an engine."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch

from paritas.transformers.directory import opened_by
from paritas.transformers.models import attach, split


@functools.cache
def ported_auto_class(original: type, engine: str = "") -> Any:
    """The Auto class of the same name, whose models are ported. engine: where none is named, if not the default."""
    space = {"__module__": "paritas.transformers", "_paritas_engine": engine}
    return type(original.__name__, (_PortedAuto, original), space)


class _PortedAuto:
    _paritas_engine: ClassVar[str]

    @classmethod
    def _split(cls, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        return split({"engine": cls._paritas_engine or None, **kwargs})

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As the original's, and with `engine=`, `mode=`, `target=`, `engine_device=`; a port is opened as it is."""
        ours, theirs = cls._split(kwargs)
        if (opened := opened_by(cls, args, theirs, ours)) is not None:
            return opened
        with torch.inference_mode(False):  # whose tensors would tell nobody that they were changed
            loaded = super().from_pretrained(*args, **theirs)  # type: ignore[misc]
        if isinstance(loaded, tuple):
            return attach(loaded[0], **ours), *loaded[1:]
        return attach(loaded, **ours)

    @classmethod
    def from_config(cls, *args: Any, **kwargs: Any) -> Any:
        """As the original's, and with `engine=`, `mode=`, `target=`, `engine_device=`."""
        ours, theirs = cls._split(kwargs)
        with torch.inference_mode(False):
            model = super().from_config(*args, **theirs)  # type: ignore[misc]
        return attach(model, **ours)
