# SPDX-License-Identifier: Apache-2.0
"""`Port.verify(train=STEPS)`: what `verify.training` compares, gathered from a port for training and its original."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from paritas.errors import EngineError, InputError
from paritas.run.engine import about
from paritas.run.engine import engine as find_engine
from paritas.run.session import StepsNodes, Trains
from paritas.verify import Environment, ParityReport
from paritas.verify.subject import Subject
from paritas.verify.training import TOLERANCE, compare_training, loss_of, shuffled

if TYPE_CHECKING:
    import torch


def verify_training(
    port: Subject,
    inputs: Any,
    *,
    steps: int,
    original: torch.nn.Module | None,
    loss: Callable[..., torch.Tensor] | None,
    seed: int,
    progress: Callable[[str], None] | None,
) -> ParityReport:
    """See `Port.verify`. Raises `InputError` for a port that is not for training, or has nothing to be trained on."""
    from paritas.capture.training import masks_of, with_loss

    manifest = port.manifest
    if not manifest.settings.get("train"):
        raise InputError(
            "This port is not for training. Make one that is: paritas.port(..., train=True), paritas port SOURCE "
            "--engine mindspore --train"
        )
    if steps < 1:
        raise InputError(f"train={steps!r} is no number of steps.")
    model = port.original(original if original is None else with_loss(original, loss))
    masks = masks_of(port.program())
    batches, notes = _batches(port, inputs, model, steps, seed)
    session = find_engine(manifest.engine).load(port.artifact, mode=port.mode)
    try:
        if not isinstance(session, Trains):
            raise EngineError(f"{manifest.engine} computes no gradients.")
        lost = {m.node for m in masks} - set(session.nodes() if isinstance(session, StepsNodes) else ())
        if lost:
            raise EngineError(f"No statement of the port's file draws {', '.join(sorted(lost))}. Make the port again.")
        rows = compare_training(port, session, model, masks, batches, steps, seed, progress)
        how = session.draws if masks else f"the port in {about(manifest.engine).title(port.mode)}"
    finally:
        session.close()
    environment = Environment.here(
        manifest.engine, package=about(manifest.engine).package, mode=port.mode, dtype=manifest.dtype
    )
    return ParityReport(
        environment=dataclasses.replace(environment, precision=port.session.precision),
        tolerance=TOLERANCE,
        subject=manifest.source.name or manifest.source.model_class,
        notes=(*map(str, port.notes), *notes),
        training=rows,
        trained_with=how,
        again=f"--train {steps}" + (" --original SOURCE" if manifest.source.kind == "module" else ""),
    )


def _batches(
    port: Subject, inputs: Any, model: torch.nn.Module, steps: int, seed: int
) -> tuple[Sequence[Mapping[str, np.ndarray]], list[str]]:
    """What is trained on: what was given, else the example in other orders as far as the original takes it."""
    if inputs is not None:
        given = [inputs] if isinstance(inputs, Mapping) else list(inputs)
        return [port.feed(one) for one in given], []
    example = port.examples()
    if not example:
        raise InputError("This port keeps no example, so that there is nothing to train it on: pass inputs.")
    found = []
    for batch in shuffled(example, steps, seed):
        try:
            feed = port.feed({**port.manifest.constants, **batch})
            if not math.isfinite(loss_of(port, model, feed)):
                raise InputError("its loss is not finite")
        except Exception as error:  # noqa: BLE001 - in whichever way a model refuses its inputs
            why = str(error).partition("\n")[0][:200]
            note = "verify: trained on the example alone, since the original does not take its numbers in another order"
            return [port.feed({**port.manifest.constants, **example})], [f"{note}: {why}"]
        found.append(feed)
    return found, []
