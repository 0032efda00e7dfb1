# SPDX-License-Identifier: Apache-2.0
"""`paritas port` of a directory that holds a pipeline of diffusers: each of its networks becomes a port."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from paritas.cli.outcome import DIVERGES, OK, console, print_json
from paritas.cli.progress import Stages
from paritas.errors import InputError, PortError

#: What diffusers calls the list of a pipeline's components.
INDEX = "model_index.json"


def is_pipeline(source: str) -> bool:
    """Whether that names a directory with a pipeline."""
    try:
        return (Path(source) / INDEX).is_file()
    except (OSError, ValueError):  # too long for a name
        return False


def port_pipeline(
    source: str, out: Path, engine: str, *, dynamic: bool, verify: bool, quiet: bool, as_json: bool, **options: Any
) -> int:
    """Port, compare the picture, write; the exit code."""
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise PortError(f"{out} is there already: name another directory.")
    if unknown := [name for name, value in options.items() if value and name not in ("mode", "target", "weights")]:
        raise InputError(f"A pipeline is ported without --{', --'.join(unknown)}.")
    given = {name: value for name, value in options.items() if value}
    with Stages(f"{source} to {engine}", quiet=quiet) as stages:
        stages("load")
        from paritas.diffusers.command import port_directory

        made = port_directory(source, out, engine=engine, dynamic=dynamic, verify=verify, progress=stages, **given)
    if as_json:
        print_json({"directory": str(out), "verdict": made.verdict, **dataclasses.asdict(made)})
    else:
        screen = console()
        for name, where in made.engines.items():
            screen.print(f"{name}: {where}", markup=False)
        compared = "" if made.error is None else f", off by {made.error:.2g} at most from PyTorch's of the same seed"
        screen.print(f"The picture {made.verdict}{compared}.", markup=False)
        screen.print(f"Written: {out}", markup=False)
        code = f"paritas.diffusers.DiffusionPipeline.from_pretrained({json.dumps(str(out))})"
        screen.print(f"To use it:   {code}", markup=False, soft_wrap=True)
    return DIVERGES if made.verdict == "diverges" else OK
