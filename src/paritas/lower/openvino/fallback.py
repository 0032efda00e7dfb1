# SPDX-License-Identifier: Apache-2.0
"""OpenVINO's own PyTorch front end, for programs with operators that there is no rule of ours for yet.

Nothing vouches for what it makes: this file, `frontend.py`, `prepare.py` and `rewrite.py` go when the rules are
complete.
"""

from __future__ import annotations

from collections.abc import Collection

import openvino
import torch

from paritas.capture import capture
from paritas.errors import LoweringError, ParitasError
from paritas.lower.openvino import frontend
from paritas.lower.openvino.ports import TENSOR, result
from paritas.lower.openvino.prepare import Prepared, prepare
from paritas.nesting import nest
from paritas.program import Note, Program


def by_frontend(
    program: Program, model: torch.nn.Module | None
) -> tuple[openvino.Model, Prepared, tuple[Note, ...]]:
    """The model, the owner of the weights that it reads, and what to tell. Raises `LoweringError`."""
    try:
        return *_converted(program), ()
    except LoweringError as error:
        program = _captured_for_openvino(program, model, error)
        note = Note("lower", "captured again for OpenVINO's converter: tensors inside cannot be observed")
        return *_converted(program, taps=()), (note,)


def _converted(program: Program, taps: Collection[str] | None = None) -> tuple[openvino.Model, Prepared]:
    """The model, and the owner of the weights that it reads."""
    prepared = prepare(program, taps)
    return name_tensors(frontend.convert(prepared, program.inputs), prepared, program), prepared


def _captured_for_openvino(program: Program, model: torch.nn.Module | None, error: LoweringError) -> Program:
    """The same inputs and outputs, captured with what OpenVINO cannot convert written in other words.

    The nodes of this graph are not those of `program`. Raises `error` where this is no way out either.
    """
    if model is None or not program.examples:
        raise error
    dynamic = any(not str(size).isdigit() for spec in program.inputs for size in spec.dims)
    try:
        with frontend.rewritten_operators():
            again = capture(
                model, {**nest(program.examples, program.nesting), **program.constants}, dynamic=dynamic
            )
    except ParitasError:
        raise error from None
    if _ports(again) != _ports(program):
        raise error
    return again


def _ports(program: Program) -> list[str]:
    return [spec.name for spec in (*program.inputs, *program.outputs)]


def name_tensors(model: openvino.Model, prepared: Prepared, program: Program) -> openvino.Model:
    """The model without its taps: its tensors named after their nodes, its ports after the program's."""
    tensors = {
        name: _behind_taps(port.input_value(0))
        for name, port in zip(prepared.taps, model.get_results(), strict=True)
    }
    specs = dict(zip(prepared.placeholders, program.inputs, strict=True))
    parameters = {}
    for parameter in model.get_parameters():
        (name,) = parameter.output(0).get_names() & set(specs)
        parameters[name] = parameter
    for op in model.get_ops():
        for output in op.outputs():
            output.get_tensor().set_names(set())
    for name, output in tensors.items():
        if name not in specs:
            output.get_tensor().add_names({TENSOR + name})
            output.get_node().set_friendly_name(name)
    for name, parameter in parameters.items():
        parameter.output(0).get_tensor().add_names({specs[name].name})
        parameter.set_friendly_name(specs[name].name)
    outputs = zip(prepared.outputs, program.outputs, strict=True)
    results = [result(tensors[name], spec) for name, spec in outputs]
    return openvino.Model(results, [parameters[name] for name in specs if name in parameters], "paritas")


def _behind_taps(value: openvino.Output) -> openvino.Output:
    while value.get_node().get_type_name() == "Identity":
        value = value.get_node().input_value(0)
    return value
