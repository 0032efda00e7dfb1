# SPDX-License-Identifier: Apache-2.0
"""From a program to `openvino_model.xml` and `.bin`, with the program's names on every tensor."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import openvino
import openvino.opset16 as ops
import torch

from paritas.capture import capture
from paritas.errors import LoweringError, ParitasError
from paritas.lower.chance import refuse_chance
from paritas.lower.openvino import frontend
from paritas.lower.openvino.compress import compress
from paritas.lower.openvino.prepare import Prepared, prepare
from paritas.lower.result import Lowered
from paritas.nesting import nest
from paritas.program import Note, Program, TensorSpec

ENTRY = "openvino_model.xml"

#: What a tensor's name begins with if the rest is the name of a node of the program.
TENSOR = "node/"

#: Our dtypes, and the precision that OpenVINO is asked to compute in.
HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def lower(
    program: Program,
    directory: Path,
    *,
    dtype: str = "float32",
    weights: str = "",
    model: torch.nn.Module | None = None,
) -> Lowered:
    """Write the program as an OpenVINO model.

    Inputs and outputs carry the program's names; every tensor inside carries the name of its node. Dynamic
    dimensions stay dynamic. `dtype` is the arithmetic that is asked for: the graph is float32, its weights
    are stored as float16 where that is the dtype, or compressed: see `compress`. Raises `LoweringError`.
    """
    if dtype not in HINTS:
        raise LoweringError(f"openvino has no dtype {dtype!r}; it has {', '.join(HINTS)}.")
    refuse_chance(program, "openvino")
    try:
        converted, prepared = _converted(program)
        notes: tuple[Note, ...] = ()
    except LoweringError as error:
        program = _captured_for_openvino(program, model, error)
        converted, prepared = _converted(program, taps=())
        notes = (Note("lower", "captured again for OpenVINO's converter: tensors inside cannot be observed"),)
    settings = {"INFERENCE_PRECISION_HINT": HINTS[dtype]}
    if weights:
        converted, note = compress(converted, weights)
        notes, settings = (*notes, note), {**settings, "weights": weights}
    try:
        openvino.save_model(converted, str(directory / ENTRY), compress_to_fp16=dtype == "float16")
    except RuntimeError as error:  # OpenVINO says no more than "iostream error" where the disk is full
        raise LoweringError(
            f"OpenVINO cannot write its files to {directory}: {error}. Is the disk full?"
        ) from error
    del prepared  # until here: the model reads its weights
    return Lowered(ENTRY, settings, notes)


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


def type_of(spec: TensorSpec) -> openvino.Type:
    """How the tensor crosses the border: every float as float32."""
    return openvino.Type.f32 if "float" in spec.dtype else openvino.Type(np.dtype(spec.dtype))


def result(value: openvino.Output, spec: TensorSpec) -> openvino.Node:
    """An output port of this name and dtype, with its own tensor: a value may be an input or come twice."""
    kind = type_of(spec)
    own = ops.identity(value) if value.get_element_type() == kind else ops.convert(value, kind.to_string())
    own.output(0).get_tensor().set_names({spec.name})
    own.set_friendly_name(f"{spec.name}/output")
    return ops.result(own)
