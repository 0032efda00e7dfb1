# SPDX-License-Identifier: Apache-2.0
"""The file to read first: `port()` is capture, lower, run; `load()` opens what a `Port` has saved."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paritas import store
from paritas.components import Components, join
from paritas.extras import require
from paritas.making import (
    AS_INFERENCE,
    NO_CACHE,
    build_options,
    check_device,
    going_on,
    inputs_for,
    instead,
    refuse_beside_components,
    refuse_free_sizes,
    refuse_training,
    task_for,
)
from paritas.options import BuildOptions
from paritas.others import Others
from paritas.ports import Port, Progress, port_program
from paritas.program import Artifact, Note, Source
from paritas.run.engine import about
from paritas.run.engine import engine as find_engine

if TYPE_CHECKING:
    import torch


def port(
    source: str | os.PathLike[str] | torch.nn.Module,
    engine: str = "openvino",
    inputs: Any = None,
    dtype: Any = None,
    device: str = "",
    dynamic: bool | Mapping[str, Mapping[int, Any]] = True,
    mode: str = "graph",
    *,
    revision: str | None = None,
    subfolder: str = "",
    model_class: str | type | None = None,
    target: str = "cpu",
    weights: str | Mapping[str, Any] = "",
    task: str = "",
    ov_config: Mapping[str, Any] | None = None,
    check_finite: bool = False,
    train: bool = False,
    loss: Callable[..., torch.Tensor] | None = None,
    autocast: Any = "",
    progress: Progress | None = None,
) -> Port | Components[Port]:
    """Port a PyTorch model to another engine.

    Args:
        source: a hub id, a local directory, a `PreTrainedModel`, or any `torch.nn.Module`, for which `inputs` are
            required.
        engine: "openvino", "mindspore" or "torch".
        inputs: example tensors, by name of forward's parameters. Their dtypes and ranks are those of the port.
        dtype: "float32", "bfloat16" or "float16", a torch dtype, or None for the model's own.
        device: where it runs and is verified. OpenVINO has "CPU", "GPU", "NPU" (with dynamic=False) and "AUTO".
        dynamic: which dimensions stay free: True for all that the model leaves free, or {"input_ids": {0: "batch"}}.
        mode: "graph" or "pynative", MindSpore only.
        revision: a branch, tag or commit of a hub id.
        subfolder: where in the directory or repository the model is.
        model_class: a class of transformers, or its name, instead of the one that the configuration names.
        target: "cpu" or "ascend", MindSpore only.
        weights: "int8" or "int4" to round the weights to so many bits, OpenVINO only: it is no longer the same model,
            and `verify` says by how much. {"format": "int4", "group_size": 64, "symmetric": True} says more, with
            `paritas[nncf]` also "awq" and others on a "dataset": see `options.Weights`. "bf16" and "fp16" only store
            them so.
        task: what the model is for, by optimum's name; it follows from the architecture where neither it nor `inputs`
            is given. "text-generation-with-past": a model that goes on with a cache; its inputs are the new tokens,
            int64 [batch, tokens], and its OpenVINO file keeps the keys and values itself, as openvino-genai expects
            it. "text-generation": one call on all tokens, without a cache, as a training has it.
        ov_config: OpenVINO's own properties, as {"NUM_STREAMS": 2}. What changes results is kept in the port.
        check_finite: refuse inputs that hold NaN or infinities, of which engines may make ordinary numbers.
        train: for training, MindSpore only: with what the model draws and remembers in training mode. `port.cell` is
            then an `nn.Cell` for MindSpore's own loops. `inputs` have to hold what the loss is computed of. To train
            in torch's loops, see `paritas.trainable`.
        loss: for `train`, computed in the graph of what the model returns, and of `inputs["target"]` where it is
            there; without it the model returns its loss itself, of `labels` for example.
        autocast: for `train`, "bfloat16" or "float16": with the casts of `torch.autocast` of that dtype, in forward and
            backward. That of a `torch.autocast` around this call where nothing is said.
        progress: called with the name of each stage as it begins: "load", "capture", "lower", "run".

    Returns:
        A port; for tasks that need several graphs `Components`, a port for each.

    Raises:
        ExtraMissing: torch or transformers are not installed.
        UnknownEngine, EngineMissing, UnknownMode, DeviceMissing: it cannot run so here. No work was done.
        InputError: the engine has no such dtype, or options contradict each other.
        SourceError, InputsNeeded: there is no such model, or nothing to call it with.
        CaptureError, FrozenDimension: the model has no graph, or not with these dimensions free.
        UnsupportedOps, LoweringError, EngineError: the engine cannot compute it. Nothing is left behind.
    """
    require("port", "paritas.port()")
    from paritas.capture import capture, recomputed
    from paritas.capture.autocast import asked, check, left
    from paritas.capture.components import TASKS
    from paritas.capture.source import resolve

    halves = check(autocast)
    tell = progress or (lambda stage: None)
    # Before any work: the engine may not be installed.
    options, notes = build_options(
        engine, dtype=dtype, mode=mode, target=target, weights=weights, device=device, ov_config=ov_config
    )
    refuse_free_sizes(options, dynamic, task)
    if train or loss is not None or autocast:
        refuse_training(options, train, inputs, task)

    tell("load")
    original, origin = resolve(
        source,
        revision=revision,
        subfolder=subfolder,
        model_class=model_class,
        dtype=about(engine).capture_dtype(options.dtype),
        notes=notes,
        in_files=about(engine).streams_weights,
    )

    mode_of: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    if train:
        from paritas.capture.training import in_training, with_loss

        original = with_loss(original, loss)
        mode_of = functools.partial(in_training, original, source, halves or asked())
        notes = [note for note in notes if note.text != AS_INFERENCE]
    wanted = task or ("" if train else task_for(original, about(engine), inputs, dynamic))
    refuse_beside_components(wanted, inputs, options)

    def made(example: Any, *, exact: bool = False) -> Port:
        tell("capture")
        with mode_of(), recomputed.noted(original) as again:
            program = capture(original, example, dynamic=dynamic, source=origin, exact=exact, train=train)
        known = [*notes, *recomputed.notes(again)] if train else notes
        with left():
            ported = port_program(program, original, options, notes=known, progress=progress)
        ported.check_finite = check_finite
        return ported

    try:
        if wanted in TASKS:
            whole = dataclasses.replace(origin, task=wanted)
            return port_components(original, whole, options, notes=notes, progress=progress, check_finite=check_finite)
        first = going_on(wanted, made(inputs_for(original, wanted, inputs)))
    except NO_CACHE as error:
        if task or not wanted:
            raise
        first = instead(error, wanted, notes, made)
    first.others = Others(first, functools.partial(made, exact=True))
    return first


def port_components(
    original: torch.nn.Module,
    source: Source,
    options: BuildOptions,
    *,
    notes: Sequence[Note] = (),
    progress: Progress | None = None,
    check_finite: bool = False,
) -> Components[Port]:
    """A port of each network that a model is taken apart into for the task of `source`."""
    from paritas.capture import capture
    from paritas.capture.components import TASKS

    tell = progress or (lambda stage: None)
    ports = {}
    find_engine(options.engine).expect(original)
    for name, part in TASKS[source.task](original).items():
        tell("capture")
        program = capture(part.module, part.inputs(), source=dataclasses.replace(source, component=name))
        ports[name] = port_program(program, part.module, options, notes=notes, progress=progress, whole=original)
        ports[name].check_finite = check_finite
    return join(ports, source.task)


def load(
    directory: str | os.PathLike[str],
    engine: str | None = None,
    device: str = "",
    *,
    mode: str = "",
    precision: str = "",
    ov_config: Mapping[str, Any] | None = None,
    allow_modified: bool = False,
    check_finite: bool = False,
) -> Port | Components[Port]:
    """A port that was saved, or several components. Needs neither torch nor transformers, unless its engine is torch.

    Every file is checked against `port.json`, and a generated module against the generator's grammar,
    before anything is executed.

    Args:
        directory: what `Port.save` or `paritas port` has written.
        engine: what it has to be a port to; None for whatever it is.
        device: as in `port`.
        mode: "graph" or "pynative", MindSpore only; "" for that of the port.
        precision: what the engine computes in, as "float32"; "" for that of the port.
        ov_config: as in `port`. Properties that change what is computed are those with which the port was verified.
        allow_modified: take files that were edited since, with a note.
        check_finite: as in `port`.

    Returns:
        A port, or `Components` where the directory has several.

    Raises:
        PortError: it is no port, or not to that engine.
        TamperedPort: A file is another than `port.json` says, or could not have been written by Paritas.
        EngineMissing, DeviceMissing, EngineError: the engine is not installed, has no such device, or fails.
    """
    check_device(directory, device, allow_modified)
    found = store.read_any(directory, allow_modified=allow_modified, hold=True)
    how = {"mode": mode, "precision": precision, "device": device, "ov_config": ov_config}
    if isinstance(found, Artifact):
        return _loaded(found, directory, engine, how, check_finite)
    artifacts = found.each()
    for kind in {artifact.manifest.engine for artifact in artifacts.values()}:
        find_engine(kind).expect(*(artifact for artifact in artifacts.values() if artifact.manifest.engine == kind))
    ports = {name: _loaded(artifact, directory, engine, how, check_finite) for name, artifact in artifacts.items()}
    found.held.clear()
    return Components(ports, found)


def load_port(directory: str | os.PathLike[str], *, allow_modified: bool = False, **how: Any) -> Port:
    """As `load`, for what has to be one graph. Raises `PortError` for several components.

    how: `mode`, `precision`, `device`, `ov_config`.
    """
    check_device(directory, how.get("device", ""), allow_modified)
    artifact = store.read(directory, allow_modified=allow_modified, hold=True)
    return _loaded(artifact, directory, None, how, False)


def _loaded(
    artifact: Artifact,
    directory: str | os.PathLike[str],
    engine: str | None,
    how: Mapping[str, Any],
    check_finite: bool,
) -> Port:
    if engine is not None and about(engine).name != artifact.manifest.engine:
        from paritas.errors import PortError

        raise PortError(
            f"{directory} is a port to {artifact.manifest.engine}, not to {engine}. Port the original again: "
            f"paritas port {artifact.manifest.source.id or 'SOURCE'} --engine {engine}"
        )
    runtime = find_engine(artifact.manifest.engine)
    device, mode = how.get("device", ""), how.get("mode", "")
    config = runtime.configured(how.get("ov_config") or {}, device)
    session = runtime.load(artifact, mode=mode, precision=how.get("precision", ""), device=device, config=config)
    artifact.held.clear()
    return Port(artifact, session, mode=mode, check_finite=check_finite)
