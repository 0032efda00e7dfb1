# SPDX-License-Identifier: Apache-2.0
"""OpenCLIP with its towers on an engine: change the import, and nothing else.

    from paritas import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32", pretrained="laion2b_s34b_b79k")
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    features = model.encode_image(preprocess(image).unsqueeze(0))

Everything that open_clip exports is here under its own name. What makes a model takes `engine=` (by default
`paritas.default_engine()`), `mode=` and the other keywords of ours, and the model's towers are ports, made when they
are first called and kept for the next start. All else, tokenizers, transforms, configurations, the reading of weights,
is the original's own code. A model that is called with tensors of MindSpore answers with them;
`paritas.open_clip.mindspore` is the same with tokens and pictures of MindSpore.
"""

from __future__ import annotations

import inspect
from typing import Any

from paritas.extras import require
from paritas.mending import mend_torchvision

require("port", "paritas.open_clip")
require("clip", "paritas.open_clip")
mend_torchvision()

import open_clip as _open_clip  # noqa: E402

import paritas.open_clip.library  # noqa: E402, F401 - registers it
from paritas.open_clip.beams import supply  # noqa: E402

supply()

__all__ = ["port_model"]

#: The functions that make models.
_MAKERS = ("create_model", "create_model_and_transforms", "create_model_from_pretrained", "load_openai_model")


def port_model(model: Any, engine: str | None = None, **options: Any) -> Any:
    """A model of open_clip in memory, from now on with its towers on the engine: the same object.

    options: `mode`, `weights`, `engine_device`, `ov_config`, as `create_model` takes them here.
    """
    from paritas.open_clip.networks import attach

    return attach(model, engine=engine, **options)


def __getattr__(name: str) -> Any:
    if name in _MAKERS:
        from paritas.open_clip.making import MAKERS

        return MAKERS[name]
    try:
        original: Any = getattr(_open_clip, name)
    except AttributeError as error:
        raise AttributeError(f"module 'paritas.open_clip' has no attribute {name!r}: {error}") from None
    if inspect.isclass(original):
        from paritas.open_clip.networks import is_two_towers

        if is_two_towers(original):
            from paritas.dropin.classes import ported_class
            from paritas.open_clip.networks import Ported

            return ported_class(original, Ported)
    return original


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_open_clip)})
