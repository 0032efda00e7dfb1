# SPDX-License-Identifier: Apache-2.0
"""A pipeline's directory ported to another one and verified: what `paritas port` and `verify` do with pipelines."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers

from paritas import store
from paritas.diffusers.opened import open_pipeline
from paritas.diffusers.porting import networks, port, save, with_ours
from paritas.diffusers.runs import call_of, loaded, of_a_picture, run
from paritas.errors import InputError, reason_of
from paritas.verify import ComponentReports


@dataclasses.dataclass(frozen=True)
class Ported:
    """engines: of the networks that were called. report: of each port and of the picture; None if not verified."""

    engines: dict[str, str]
    report: ComponentReports | None

    @property
    def verdict(self) -> str:
        return "not verified" if self.report is None else self.report.verdict


def port_directory(
    source: str | os.PathLike[str],
    out: Path,
    *,
    engine: Any,
    call: Mapping[str, Any] | None = None,
    dynamic: bool = True,
    verify: bool = True,
    level: str = "modules",
    progress: Callable[[str], None] = lambda stage: None,
    detail: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> Ported:
    """Port the pipeline in `source`, write it to `out`, open that, and compare it with the original.

    call: arguments of the pipeline, for one that needs others than a prompt. A pipeline that makes pictures of
    pictures too, of the same networks, is called so as well, that `vae.encode` is a port. Raises `InputError` where
    arguments are missing, `SourceError`, and what `port` and `save` raise; the report is then not written, or nothing.
    """
    progress("load")
    pipeline = loaded(source)
    arguments = call_of(pipeline, call or {})
    progress("port")
    port(pipeline, engine, **options)
    found = run(pipeline, arguments)
    if not call:
        of_a_picture(pipeline, next(iter(found.outputs.values()), None))
    progress("save")
    save(pipeline, out, dynamic=dynamic, source=str(source), call=arguments)
    engines = {
        n: str(getattr(one, "engine", "")) for n, one in networks(pipeline).items() if getattr(one, "ports", None)
    }
    del pipeline
    gc.collect()
    if not verify:
        return Ported(engines, None)
    progress("verify")
    report = opened(out).verify(arguments if call else None, level, original=source, progress=detail)
    attach(out, report)
    return Ported(engines, report)


def opened(directory: Path, **ours: Any) -> Any:
    """A saved pipeline. Raises what `open_pipeline` raises."""
    return with_ours(open_pipeline(diffusers.DiffusionPipeline, directory, {}, ours))


def attach(directory: Path, report: ComponentReports) -> None:
    """parity.json, PARITY.md and PARITY.html of a saved pipeline, which they call by its name. Raises `PortError`."""
    place = directory.expanduser().resolve()
    store.replace_text(place / "parity.json", report.to_json())
    store.replace_text(place / "PARITY.md", report.to_markdown(place.name))
    store.replace_text(place / "PARITY.html", report.to_html(place.name))


def call_from(given: list[str]) -> dict[str, Any]:
    """Arguments of a pipeline as a command has them, `NAME=VALUE`: JSON, or a picture's file, or a text."""
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"--call {text!r} is not NAME=VALUE, as in height=512 or 'prompt=a red circle'.")
        if name in found:
            raise InputError(f"--call {name} is given twice.")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    if text.lower().endswith((".png", ".jpg", ".jpeg", ".webp", ".bmp")):
        import PIL.Image

        try:
            return PIL.Image.open(text).convert("RGB")
        except OSError as error:
            raise InputError(f"The picture {text} cannot be read: {reason_of(error)}") from None
    return text
