# SPDX-License-Identifier: Apache-2.0
"""What the core of drop-ins has to know of open_clip, and of timm, whose image towers it takes."""

from __future__ import annotations

import paritas.transformers.library  # noqa: F401 - text towers are its models
from paritas.dropin.library import Library, register

register(Library("open_clip", models=("open_clip.",), bookkeeping=frozenset({"preprocess_cfg"})))
register(
    Library(
        "timm",
        models=("timm.models.",),
        bookkeeping=frozenset({"pretrained_cfg", "default_cfg"}),  # where weights come from, and names
    )
)
