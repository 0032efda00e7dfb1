# SPDX-License-Identifier: Apache-2.0
"""Diffusers with its networks on an engine: change the import, and nothing else.

    from paritas.diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained("runwayml/stable-diffusion-v1-5", engine="openvino")
    pipeline("a red circle").images[0]

Every class of diffusers is here under its own name. The networks of a pipeline run on `engine=` (by default
`paritas.default_engine()`), as ports that are made when they are first called and kept for the next start. All else,
schedulers, prompts, guidance, random numbers, is the original's own code. `port(pipeline)` takes one in memory.
"""

from __future__ import annotations

import inspect
from typing import Any

from paritas.extras import require

require("port", "paritas.diffusers")
require("diffusers", "paritas.diffusers")

import diffusers as _diffusers  # noqa: E402

__all__ = ["port", "verify"]


def port(pipeline: Any, engine: Any = None, **options: Any) -> Any:
    """A pipeline in memory, from now on with its networks on an engine: see `paritas.diffusers.porting.port`."""
    from paritas.diffusers.porting import port as ported

    return ported(pipeline, engine, **options)


def verify(pipeline: Any, inputs: Any = None, level: str = "modules", **how: Any) -> Any:
    """Whether a pipeline on engines is still PyTorch's, port by port and by its picture.

    See `paritas.diffusers.porting.verify`.
    """
    from paritas.diffusers.porting import verify as verified

    return verified(pipeline, inputs, level, **how)


def __getattr__(name: str) -> Any:
    try:
        original: Any = getattr(_diffusers, name)
    except AttributeError as error:
        raise AttributeError(f"module 'paritas.diffusers' has no attribute {name!r}: {error}") from None
    if not inspect.isclass(original):
        return original
    cls: Any = original
    if issubclass(cls, _diffusers.ModelMixin):
        from paritas.diffusers.networks import Ported
        from paritas.dropin.classes import ported_class

        return ported_class(cls, Ported)
    if issubclass(cls, _diffusers.DiffusionPipeline) or name.startswith("AutoPipelineFor"):
        from paritas.diffusers.porting import ported_pipeline_class

        return ported_pipeline_class(cls)
    return original


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_diffusers)})
