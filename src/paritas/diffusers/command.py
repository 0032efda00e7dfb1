# SPDX-License-Identifier: Apache-2.0
"""A pipeline's directory ported to another one, with the picture compared: what `paritas port` does with pipelines."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoPipelineForImage2Image, DiffusionPipeline

from paritas.diffusers.porting import networks, port, save
from paritas.errors import InputError

#: How far numbers of a picture, 0 to 1, may be from PyTorch's.
TOLERANCE = 1e-4

#: What every pipeline is called with that takes it.
_CALL: dict[str, Any] = {"prompt": "a photo of a cat", "num_inference_steps": 2, "output_type": "np"}


@dataclasses.dataclass(frozen=True)
class Ported:
    """engines: of the networks that were called. error: of the picture, None where it was not compared."""

    engines: dict[str, str]
    error: float | None

    @property
    def verdict(self) -> str:
        return "not verified" if self.error is None else "agrees" if self.error <= TOLERANCE else "diverges"


def port_directory(
    source: str | os.PathLike[str],
    out: Path,
    *,
    engine: Any,
    call: Mapping[str, Any] | None = None,
    dynamic: bool = True,
    verify: bool = True,
    progress: Callable[[str], None] = lambda stage: None,
    **options: Any,
) -> Ported:
    """Port the pipeline in `source`, compare its picture, and write it to `out`.

    call: arguments of the pipeline, for one that needs others than a prompt. A pipeline that makes pictures of
    pictures too, of the same networks, is called so as well, that `vae.encode` is a port. Raises `InputError` where
    arguments are missing, and what `port` and `save` raise.
    """
    progress("load")
    pipeline = DiffusionPipeline.from_pretrained(source)
    arguments = call_of(pipeline, call or {})
    want = _picture(pipeline, arguments) if verify else None
    progress("port")
    port(pipeline, engine, **options)
    got = _picture(pipeline, arguments)
    if not call:
        _of_a_picture(pipeline, got)
    progress("save")
    save(pipeline, out, dynamic=dynamic)
    error = None if want is None else float(np.abs(want - got).max())
    engines = {
        n: str(getattr(one, "engine", "")) for n, one in networks(pipeline).items() if getattr(one, "ports", None)
    }
    return Ported(engines, error)


def call_of(pipeline: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one call. Raises `InputError` for what is missing or unknown."""
    takes = inspect.signature(pipeline.__call__).parameters
    if unknown := [name for name in given if name not in takes]:
        raise InputError(f"{type(pipeline).__name__} takes no {', '.join(unknown)}; it takes {', '.join(takes)}.")
    found = {**{name: value for name, value in _CALL.items() if name in takes}, **given}
    missing = [n for n, p in takes.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD and n not in found]
    if missing:
        raise InputError(
            f"{type(pipeline).__name__} needs {', '.join(missing)} as well, which a command cannot give it. In Python: "
            "pipe = paritas.diffusers.DiffusionPipeline.from_pretrained(SOURCE); pipe(...); pipe.save_pretrained(DIR)"
        )
    if "generator" in takes:
        found["generator"] = None
    return found


def _picture(pipeline: Any, arguments: Mapping[str, Any]) -> np.ndarray:
    """The first output of a call from a seed, as numbers."""
    torch.manual_seed(0)
    given = dict(arguments)
    if "generator" in given:
        given["generator"] = torch.Generator().manual_seed(0)
    first = pipeline(**given)[0]
    return np.stack([np.asarray(one, dtype=np.float64) for one in first])


def _of_a_picture(pipeline: Any, picture: np.ndarray) -> None:
    """Make a picture of a picture once, where there is such a pipeline of the same networks."""
    try:
        other = AutoPipelineForImage2Image.from_pipe(pipeline)
    except (ValueError, TypeError):
        return
    image = torch.from_numpy(picture[:1]).permute(0, 3, 1, 2).float()
    takes = inspect.signature(other.__call__).parameters
    call = {**_CALL, "image": image, "strength": 1.0}
    other(**{name: value for name, value in call.items() if name in takes})
