# SPDX-License-Identifier: Apache-2.0
"""What a port is before it runs: in which precision an engine computes it, and what `port.json` says of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from paritas.dtypes import dtype_name, named_dtype
from paritas.errors import InputError
from paritas.guards import remaining
from paritas.program import Manifest, Note, Program
from paritas.run.engine import versions
from paritas.run.values import to_numpy

if TYPE_CHECKING:
    from paritas.lower.result import Lowered


def arrays(program: Program) -> dict[str, np.ndarray]:
    """What a program was captured with, as an engine takes it."""
    return {spec.name: to_numpy(spec.name, program.examples[spec.name]) for spec in program.inputs}


def computed_in(dtype: Any, runtime: Any) -> tuple[str, list[Note]]:
    """The dtype asked for ("" for the model's own), or what the engine does instead, with a note."""
    if dtype is None:
        return "", []
    name = named_dtype(dtype)
    known = runtime.precisions()
    if name not in known:
        raise InputError(f"{runtime.name} has no dtype {dtype!r}; it has {', '.join(known)}.")
    if known[name]:
        return "float32", [Note("lower", f"{name} was asked for; {known[name]}")]
    return name, []


def check_weights(weights: str, engine: str) -> None:
    """Raise `InputError` if the engine has no such weights."""
    if weights not in ("", "int8", "int4"):
        raise InputError(f"weights={weights!r} is not possible: int8 and int4 are.")
    if weights and engine != "openvino":
        raise InputError(f"weights={weights!r} is for engine='openvino', not for {engine}.")


def stored_as(dtype: str, engine: str) -> str | None:
    """The dtype in which the original is captured. OpenVINO lowers the precision of a float32 graph by itself."""
    return "float32" if engine == "openvino" and dtype else dtype or None


def dtype_of(program: Program) -> str:
    floats = [dtype_name(t.dtype) for t in program.weights.values() if t.is_floating_point()]
    return max(set(floats), key=floats.count) if floats else "float32"


def manifest_of(
    program: Program,
    lowered: Lowered,
    engine: str,
    *,
    dtype: str = "",
    mode: str = "",
    target: str = "cpu",
    notes: Sequence[Note] = (),
) -> Manifest:
    """What `port.json` says of a program that was lowered."""
    return Manifest(
        engine=engine,
        dtype=lowered.dtype or dtype or dtype_of(program),
        inputs=lowered.inputs or program.inputs,
        outputs=lowered.outputs or program.outputs,
        structure=program.structure,
        source=program.source,
        entry=lowered.entry,
        mode=mode if engine == "mindspore" else "",
        target=target,
        constants=dict(program.constants.items()),
        limits=program.limits,
        modules=program.modules,
        notes=(*notes, *program.notes, *lowered.notes),
        versions=_versions(engine),
        settings=lowered.settings,
        nesting=program.nesting,
        prepared=program.prepared,
        signature=program.signature,
        guards=remaining(
            (*program.guards, *lowered.guards), program.inputs, lowered.inputs or program.inputs
        ),
        sizes=program.sizes,
    )


@functools.cache
def _versions(engine: str) -> dict[str, str]:
    return versions(("paritas", "torch", "transformers", engine, "numpy"))
