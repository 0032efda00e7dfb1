# SPDX-License-Identifier: Apache-2.0
"""diffusers with its networks on an engine, as small as a namespace can be: made of `paritas.dropin` alone.

unet = small_diffusers.UNet2DModel.from_pretrained(directory, engine="openvino")
pipeline = small_diffusers.attach(diffusers.DDIMPipeline(unet, scheduler), engine="openvino")
"""

from __future__ import annotations

import inspect
from typing import Any

import diffusers

from paritas.dropin import classes
from paritas.dropin.library import Library, register

register(
    Library(
        "diffusers",
        models=("diffusers.models.", "diffusers.pipelines."),
        bases=("diffusers.models.modeling_utils", "diffusers.configuration_utils", "diffusers.utils"),
        bookkeeping=frozenset({"_internal_dict"}),  # what a model was made with: its modules say it all
    )
)


class Ported(classes.Ported):
    """Mixed into a model class of diffusers: how models are loaded."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As the original's, and with `engine=`, `mode=`, `target=`, `weights=`, `engine_device=`."""
        return cls._paritas_made("from_pretrained", args, kwargs)

    @classmethod
    def from_config(cls, *args: Any, **kwargs: Any) -> Any:
        return cls._paritas_made("from_config", args, kwargs)


def attach(pipeline: Any, **ours: Any) -> Any:
    """A pipeline of diffusers' with its networks on an engine: the same object."""
    for part in pipeline.components.values():
        if isinstance(part, diffusers.ModelMixin):
            classes.attach(part, Ported, **ours)
    return pipeline


def __getattr__(name: str) -> Any:
    original: Any = getattr(diffusers, name)
    if inspect.isclass(original) and issubclass(original, diffusers.ModelMixin):
        return classes.ported_class(original, Ported)
    return original
