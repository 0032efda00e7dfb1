# SPDX-License-Identifier: Apache-2.0
"""`adopt()`: a model that another converter made becomes a port, so that it can be verified like one of ours."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paritas.errors import InputError
from paritas.extras import require
from paritas.making import build_options
from paritas.ports import Port, Progress, assemble

if TYPE_CHECKING:
    import openvino
    import torch

    from paritas.lower.result import Lowered


def adopt(
    model: str | os.PathLike[str] | openvino.Model,
    original: str | os.PathLike[str] | torch.nn.Module,
    inputs: Any = None,
    dtype: Any = None,
    *,
    device: str = "",
    ov_config: Mapping[str, Any] | None = None,
    revision: str | None = None,
    subfolder: str = "",
    model_class: str | type | None = None,
    progress: Progress | None = None,
) -> Port:
    """A port of `original` whose files are `model`, an OpenVINO model (.xml) that some other converter wrote.

    Its nodes can be compared one by one where the converter has kept the names of a captured graph, as
    `openvino.convert_model(torch.export.export(...))` does; a note counts them.

    Args:
        model: an .xml file, or a model of OpenVINO in memory.
        original: what it was converted from, as `paritas.port` takes it.
        inputs, revision, subfolder, model_class, progress: as in `paritas.port`, of the original.
        dtype: "float32", "bfloat16" or "float16"; None for what OpenVINO chooses by itself, which `verify` says.
        device, ov_config: where and with which properties it runs, as in `paritas.port`.

    Returns:
        A port that has not been compared yet: `port.verify()`.

    Raises:
        InputError: for a file that is no model, or whose inputs or outputs are not the original's.
        DeviceMissing: for a device that is not here; and what `paritas.port` raises of the original.
    """
    require("port", "paritas.adopt()")
    options, notes = build_options("openvino", dtype=dtype, device=device, ov_config=ov_config)
    from paritas.capture import capture
    from paritas.capture.source import resolve
    from paritas.lower.openvino.adopt import adopt as written

    tell = progress or (lambda stage: None)
    tell("load")
    theirs = _read(model)
    module, origin = resolve(
        original, revision=revision, subfolder=subfolder, model_class=model_class, dtype="float32", notes=notes
    )
    tell("capture")
    program = capture(module, inputs, source=origin)

    def write(directory: Path) -> Lowered:
        return written(theirs, program, directory, dtype=options.dtype)

    return assemble(program, module, dataclasses.replace(options, dtype=""), write, notes=notes, progress=progress)


def _read(model: Any) -> openvino.Model:
    import openvino

    if isinstance(model, openvino.Model):
        return model.clone()
    file = Path(model)
    if not file.is_file():
        raise InputError(f"There is no file {file}.")
    try:
        return openvino.Core().read_model(file)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(f"{file} is no model that OpenVINO reads: {lines[-1][:300]}") from None
