# SPDX-License-Identifier: Apache-2.0
"""What a port is before it runs: in which precision an engine computes it, and what `port.json` says of it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from paritas import store
from paritas.arguments import nest
from paritas.caches import keeps_inside
from paritas.dtypes import dtype_name, named_dtype
from paritas.errors import (
    CaptureError,
    EngineError,
    FrozenDimension,
    InputError,
    InputsNeeded,
    LoweringError,
    OriginalFails,
    PortError,
    UnknownMode,
    UnsupportedOps,
    first_line,
)
from paritas.extras import require
from paritas.guards import remaining
from paritas.options import BuildOptions, weights_of
from paritas.program import Artifact, Manifest, Note, Program
from paritas.run.engine import Engine, about, all_about, versions
from paritas.run.engine import engine as find_engine
from paritas.run.values import to_numpy

if TYPE_CHECKING:
    from paritas.lower.result import Lowered
    from paritas.verify.subject import Subject


def arrays(program: Program) -> dict[str, np.ndarray]:
    """What a program was captured with, as an engine takes it."""
    return {spec.name: to_numpy(spec.name, program.examples[spec.name]) for spec in program.inputs}


def computed_in(dtype: Any, runtime: Engine, device: str = "") -> tuple[str, list[Note]]:
    """The dtype asked for ("" for the model's own), or what the engine does instead on that device, with a note."""
    if dtype is None and not device:
        return "", []
    known = runtime.precisions(device)
    name = "float32" if dtype is None else named_dtype(dtype)
    if name not in known:
        raise InputError(f"{runtime.name} has no dtype {dtype!r}; it has {', '.join(known)}.")
    if not known[name]:
        return "" if dtype is None else name, []
    able = next((one for one in ("float32", *known) if not known.get(one, "no")), "float32")
    return able, [Note("lower", f"{name} was asked for; {known[name]}")]


def build_options(
    engine: str,
    *,
    dtype: Any = None,
    mode: str = "",
    target: str = "cpu",
    weights: Any = "",
    device: str = "",
    ov_config: Mapping[str, Any] | None = None,
) -> tuple[BuildOptions, list[Note]]:
    """What is asked for, as the engine has it; what it does instead is a note.

    mode: the engine's first if not given; of no meaning for an engine that has one way of running. Raises
    `UnknownEngine`, `EngineMissing`, `UnknownMode`, `DeviceMissing`, and `InputError` for a dtype, a target, weights or
    a property of the engine's.
    """
    runtime = find_engine(engine)
    if len(runtime.modes) > 1 and mode and mode not in runtime.modes:
        raise UnknownMode(runtime.name, mode, tuple(runtime.modes))
    device = runtime.device(device)
    wanted, notes = computed_in(dtype, runtime, device)
    asked, calibration = weights_of(weights)
    check_weights(asked.format, runtime)
    if asked.by_nncf:
        require("nncf", f"weights={asked.text!r}")
    if target not in runtime.targets:
        raise InputError(f"{runtime.name} has no target {target!r}; it has {', '.join(runtime.targets)}.")
    chosen = (mode or next(iter(runtime.modes))) if len(runtime.modes) > 1 else ""
    config = runtime.configured(ov_config or {}, device)
    notes += runtime.notes_on(config)
    properties = tuple(sorted(config.items()))
    return BuildOptions(runtime.name, wanted, chosen, target, asked.text, device, properties, calibration), notes


#: What `resolve` says of a model that it has brought to evaluation mode.
AS_INFERENCE = "the model was in training mode and was captured in evaluation mode"


def refuse_training(options: BuildOptions, train: bool, inputs: Any, task: str) -> None:
    """Raise `InputError`, before any work, where a port for training cannot be made."""
    if not train:
        raise InputError("loss= and autocast= are of a port for training: pass train=True too.")
    if not about(options.engine).trains:
        raise InputError(f'{options.engine} computes no gradients: train=True is for engine="mindspore".')
    if inputs is None:
        raise InputError("train=True needs inputs=, with the labels, or whatever the loss is computed of.")
    if task:
        raise InputError(f"train=True makes a port of one call, and none for the task {task!r}.")


def refuse_free_sizes(options: BuildOptions, dynamic: Any, task: str = "") -> None:
    """Raise `InputError` where sizes would be left free that the device wants fixed: before any work."""
    if not about(options.engine).needs_fixed_sizes_on(options.device) or not (dynamic or task):
        return
    if task and not dynamic:
        raise InputError(f"{options.device} runs models of fixed sizes only, and {task} leaves lengths free.")
    raise InputError(
        f"{options.device} runs models of fixed sizes only. Port it with those of an example: "
        f"paritas.port(..., inputs=..., dynamic=False), or "
        f"paritas port SOURCE --static --device {options.device} --input NAME=SHAPE --out DIR"
    )


def refuse_beside_components(task: str, inputs: Any, options: BuildOptions) -> None:
    """Raise `InputError` for what no task of several graphs can have: inputs that are given, or a dataset."""
    from paritas.capture.components import TASKS

    if task not in TASKS:
        return
    if inputs is not None:
        raise InputError(f"The task {task} has inputs of its own: leave out inputs, or the task.")
    if options.calibration is not None:
        raise InputError(f"A dataset is for models of one graph: {task} has several, and no sample is one of each.")


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
    from paritas.capture import encoder_decoder, generation, vision_language

    if inputs is not None or dynamic is not True or not runtime.goes_on:
        return ""
    found = generation.default_task(model)
    if found or not runtime.own_state:
        return found
    return encoder_decoder.task_of(model) or vision_language.task_of(model)


#: What may be in the way of a port that goes on with a cache, and not of one that computes one call.
NO_CACHE = (InputsNeeded, CaptureError, FrozenDimension, UnsupportedOps, LoweringError, EngineError, PortError)


def going_on(task: str, port: Any) -> Any:
    """`port`, if it does for its task what it has to: raises `CaptureError` for a cache that holds one size only."""
    from paritas.capture.generation import WITH_PAST

    if task == WITH_PAST and not keeps_inside(port.manifest):
        name = port.manifest.source.model_class.rpartition(".")[-1]
        why = "; ".join(str(note) for note in port.notes if "fixed" in str(note))[:600]
        raise CaptureError(f"{name} goes on with a cache at one size only: {why}")
    return port


def without_cache(error: Exception) -> Note:
    """What a port says that was to have a cache, and has none."""
    return Note("capture", f"without a cache, since with one it cannot be ported: {first_line(error).rstrip('.')}")


def instead(error: Exception, task: str, notes: list[Note], made: Callable[[Any], Any]) -> Any:
    """A port of one call, of a model that cannot be ported for its task, for the reason that `error` says.

    Raises `error` where such a call would have to be given, and the model has several graphs for its task.
    """
    from paritas.capture.components import TASKS

    notes.append(without_cache(error))
    try:
        return made(None)
    except (InputsNeeded, OriginalFails):
        if task in TASKS:
            raise error from None
        raise


def check_weights(weights: str, runtime: Engine) -> None:
    """Raise `InputError` if the engine has no such weights."""
    if not weights or weights in runtime.weight_formats:
        return
    able = [one.name for one in all_about() if weights in one.weight_formats]
    if not able:
        known = dict.fromkeys(name for one in all_about() for name in one.weight_formats)
        *names, last = known
        raise InputError(f"weights={weights!r} is not possible: {', '.join(names)} and {last} are.")
    raise InputError(f"weights={weights!r} is for engine={' or '.join(map(repr, able))}, not for {runtime.name}.")


def prepared(original: Any, manifest: Manifest, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the original's preparation adds to these inputs, fixed arguments included, so that they are checked."""
    import torch

    from paritas.capture.export import prepare

    known = {spec.name: spec.dtype for spec in manifest.inputs}
    tensors = {
        name: torch.from_numpy(np.array(to_numpy(name, value))).to(getattr(torch, known[name]))
        for name, value in given.items()
        if name in known and value is not None
    }
    arguments = nest(tensors, manifest.nesting)
    more = prepare(original, arguments)
    added = {name: value for name, value in more.items() if name not in arguments}
    return {n: v.numpy() if isinstance(v, torch.Tensor) else v for n, v in added.items()}


def examples_of(port: Subject) -> list[Any]:
    """What a port is captured with again: its own example, or inputs that are made up."""
    import torch

    from paritas.verify import generate
    from paritas.verify.inputs.sizes import size_ranges, ways

    manifest = port.manifest
    made_up = generate(port.inputs, limits=size_ranges(manifest.limits), ways=ways(manifest))
    feed = port.examples() or made_up[0].feed
    return [torch.from_numpy(np.array(feed[s.name])).to(getattr(torch, s.dtype)) for s in port.inputs]


def original_for(manifest: Manifest, given: Any, known: Any) -> Any:
    """The original of a port: what is `given`, else what is known, else what is loaded again.

    Raises `OriginalMissing` for one that was in memory only.
    """
    from paritas.capture import components, source

    of, runtime = manifest.source, about(manifest.engine)
    if given is not None:  # a copy of one in training mode, which stays as it is
        return components.component(source.resolve(given)[0], of)
    if known is not None:
        return known
    again = source.load_again(of, dtype=runtime.capture_dtype(manifest.dtype), in_files=runtime.streams_weights)
    return components.component(again, of)


def restore(original: Any, program: Program | None) -> None:
    """Read into memory what of a model's weights is in its checkpoint's files."""
    from paritas.capture import stored

    stored.restore(original, program)


def check_device(directory: str | os.PathLike[str], device: str, allow_modified: bool) -> None:
    """Raise `DeviceMissing` before gigabytes are read."""
    if device:
        seen = store.read_any(directory, verify_checksums=False, allow_modified=allow_modified)
        one = seen if isinstance(seen, Artifact) else next(iter(seen.each().values()))
        about(one.manifest.engine).device(device)


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
        settings={**lowered.settings, **_lasting(options), **_of_training(program)},
        nesting=program.nesting,
        prepared=program.prepared,
        signature=program.signature,
        guards=remaining((*program.guards, *lowered.guards), program.inputs, lowered.inputs or program.inputs),
        sizes=program.sizes,
    )


def _of_training(program: Program) -> dict[str, Any]:
    """What a training port was captured under."""
    return {
        **({"train": True} if program.train else {}),
        **({"autocast": program.autocast} if program.autocast else {}),
    }


def _lasting(options: BuildOptions) -> dict[str, Any]:
    """The engine's own properties that are part of a port."""
    found = about(options.engine).lasting(dict(options.config))
    return {"ov_config": found} if found else {}


@functools.cache
def _versions(engine: str) -> dict[str, str]:
    return versions(("paritas", "torch", "transformers", about(engine).package, "numpy"))
