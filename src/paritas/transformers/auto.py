# SPDX-License-Identifier: Apache-2.0
"""The Auto classes: the original finds class and weights, and the model that it returns runs on an engine."""

from __future__ import annotations

from typing import Any

import torch

from paritas.transformers.models import attach, split


def ported_auto_class(original: type) -> Any:
    """The Auto class of the same name, whose models are ported."""
    return type(original.__name__, (_PortedAuto, original), {"__module__": "paritas.transformers"})


class _PortedAuto:
    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As the original's, and with `engine=`, `mode=`, `target=`, `engine_device=`."""
        ours, theirs = split(kwargs)
        with torch.inference_mode(False):  # whose tensors would tell nobody that they were changed
            loaded = super().from_pretrained(*args, **theirs)  # type: ignore[misc]
        if isinstance(loaded, tuple):
            return attach(loaded[0], **ours), *loaded[1:]
        return attach(loaded, **ours)

    @classmethod
    def from_config(cls, *args: Any, **kwargs: Any) -> Any:
        """As the original's, and with `engine=`, `mode=`, `target=`, `engine_device=`."""
        ours, theirs = split(kwargs)
        with torch.inference_mode(False):
            model = super().from_config(*args, **theirs)  # type: ignore[misc]
        return attach(model, **ours)
