# SPDX-License-Identifier: Apache-2.0
"""What a port is before it runs: in which precision an engine computes it, and what `port.json` says of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from paritas.dtypes import dtype_name, named_dtype
from paritas.errors import (
    CaptureError,
    EngineError,
    FrozenDimension,
    InputError,
    InputsNeeded,
    LoweringError,
    PortError,
    UnknownMode,
    UnsupportedOps,
    first_line,
)
from paritas.guards import remaining
from paritas.options import BuildOptions
from paritas.program import Manifest, Note, Program
from paritas.run.engine import Engine, about, all_about, versions
from paritas.run.engine import engine as find_engine
from paritas.run.values import to_numpy

if TYPE_CHECKING:
    from paritas.lower.result import Lowered


def arrays(program: Program) -> dict[str, np.ndarray]:
    """What a program was captured with, as an engine takes it."""
    return {spec.name: to_numpy(spec.name, program.examples[spec.name]) for spec in program.inputs}


def computed_in(dtype: Any, runtime: Engine) -> tuple[str, list[Note]]:
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


def build_options(
    engine: str, *, dtype: Any = None, mode: str = "", target: str = "cpu", weights: str = "", device: str = ""
) -> tuple[BuildOptions, list[Note]]:
    """What is asked for, as the engine has it; what it does instead is a note.

    mode: the engine's first if not given; of no meaning for an engine that has one way of running. Raises
    `UnknownEngine`, `EngineMissing`, `UnknownMode`, and `InputError` for a dtype, a target or weights.
    """
    runtime = find_engine(engine)
    if len(runtime.modes) > 1 and mode and mode not in runtime.modes:
        raise UnknownMode(runtime.name, mode, tuple(runtime.modes))
    wanted, notes = computed_in(dtype, runtime)
    check_weights(weights, runtime)
    if target not in runtime.targets:
        raise InputError(f"{runtime.name} has no target {target!r}; it has {', '.join(runtime.targets)}.")
    chosen = (mode or next(iter(runtime.modes))) if len(runtime.modes) > 1 else ""
    return BuildOptions(runtime.name, wanted, chosen, target, weights, device), notes


def inputs_for(model: Any, task: str, inputs: Any) -> Any:
    """What a model is captured with for a task; `inputs` where none is named.

    Raises `InputError` for an unknown one, or one beside `inputs`, and `InputsNeeded` for one that the model has not.
    """
    from paritas.capture import generation
    from paritas.capture.components import TASKS

    if not task:
        return inputs
    if task not in (generation.WITH_PAST, generation.WITHOUT_PAST):
        known = ", ".join((generation.WITH_PAST, generation.WITHOUT_PAST, *TASKS))
        raise InputError(f"There is no task {task!r}. Paritas knows: {known}.")
    if task == generation.WITHOUT_PAST:
        if not generation.can_generate(model):
            raise InputsNeeded(f"{type(model).__name__} does not write text after a text: it has no {task}.")
        return inputs
    if inputs is not None:
        raise InputError(f"The task {task} has inputs of its own: leave out inputs, or the task.")
    return generation.going_on(model)


def task_for(model: Any, runtime: Engine, inputs: Any, dynamic: Any) -> str:
    """The task of a model that nobody has named one for; "" for one call of it, as with an example of its own."""
    from paritas.capture import generation

    if inputs is not None or dynamic is not True or not runtime.own_state:
        return ""
    return generation.default_task(model)


#: What may be in the way of a port that goes on with a cache, and not of one that computes one call.
NO_CACHE = (InputsNeeded, CaptureError, FrozenDimension, UnsupportedOps, LoweringError, EngineError, PortError)


def without_cache(error: Exception) -> Note:
    """What a port says that was to have a cache, and has none."""
    return Note("capture", f"without a cache, since with one it cannot be ported: {first_line(error).rstrip('.')}")


def check_weights(weights: str, runtime: Engine) -> None:
    """Raise `InputError` if the engine has no such weights."""
    if not weights or weights in runtime.weight_formats:
        return
    able = [one.name for one in all_about() if weights in one.weight_formats]
    if not able:
        known = dict.fromkeys(name for one in all_about() for name in one.weight_formats)
        raise InputError(f"weights={weights!r} is not possible: {' and '.join(known)} are.")
    raise InputError(f"weights={weights!r} is for engine={' or '.join(map(repr, able))}, not for {runtime.name}.")


def dtype_of(program: Program) -> str:
    floats = [dtype_name(t.dtype) for t in program.weights.values() if t.is_floating_point()]
    return max(set(floats), key=floats.count) if floats else "float32"


def manifest_of(program: Program, lowered: Lowered, options: BuildOptions, *, notes: Sequence[Note] = ()) -> Manifest:
    """What `port.json` says of a program that was lowered."""
    return Manifest(
        engine=options.engine,
        dtype=lowered.dtype or options.dtype or dtype_of(program),
        inputs=lowered.inputs or program.inputs,
        outputs=lowered.outputs or program.outputs,
        structure=program.structure,
        source=program.source,
        entry=lowered.entry,
        mode=options.mode,
        target=options.target,
        constants=dict(program.constants.items()),
        limits=program.limits,
        modules=program.modules,
        notes=(*notes, *program.notes, *lowered.notes),
        versions=_versions(options.engine),
        settings=lowered.settings,
        nesting=program.nesting,
        prepared=program.prepared,
        signature=program.signature,
        guards=remaining((*program.guards, *lowered.guards), program.inputs, lowered.inputs or program.inputs),
        sizes=program.sizes,
    )


@functools.cache
def _versions(engine: str) -> dict[str, str]:
    return versions(("paritas", "torch", "transformers", about(engine).package, "numpy"))
