# SPDX-License-Identifier: Apache-2.0
"""`paritas.open_clip` for programs of MindSpore: tokenizers return its tensors, transforms arrays [1, 3, h, w].

    from paritas.open_clip.mindspore import create_model_and_transforms, get_tokenizer

Models answer with tensors of MindSpore wherever they are called with them, on every engine; so this is for programs
that make no tensor of torch's at all.
"""

from __future__ import annotations

import inspect
from typing import Any

from paritas import open_clip
from paritas.open_clip.foreign import for_mindspore


def __getattr__(name: str) -> Any:
    found = getattr(open_clip, name)
    return for_mindspore(found) if inspect.isfunction(found) else found


def __dir__() -> list[str]:
    return dir(open_clip)
