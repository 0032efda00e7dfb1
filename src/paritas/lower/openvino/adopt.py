# SPDX-License-Identifier: Apache-2.0
"""An OpenVINO model that another converter made, under the names of a program's inputs, outputs and nodes."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import openvino
import openvino.opset16 as ops

from paritas.errors import InputError, LoweringError
from paritas.lower.openvino.convert import ENTRY, HINTS
from paritas.lower.openvino.ports import TENSOR, result, type_of
from paritas.lower.result import Lowered
from paritas.program import Note, Program, TensorSpec
from paritas.size_names import shown

#: OpenVINO's own converter calls an operator "<node>/<target>/<type>", and its tensor "<node>:0".
_FRIENDLY = re.compile(r"^(?P<node>[^/]+)/(?P<target>aten\.\w+\.\w+)/")
_TENSOR = re.compile(r"^(?P<node>.+):(?P<index>\d+)$")


def adopt(model: openvino.Model, program: Program, directory: Path, *, dtype: str = "") -> Lowered:
    """Write `model` as a port of `program`: as it is, but for the names of its tensors.

    Inputs and outputs are matched by name, or by their order if no name fits. dtype: the arithmetic to ask for; what
    OpenVINO takes by itself on this machine if "". A node is matched if both graphs give its name to the same
    operator; the notes say how many were. Raises `InputError` if inputs or outputs do not fit the program's.
    """
    if dtype and dtype not in HINTS:
        raise LoweringError(f"openvino has no dtype {dtype!r}; it has {', '.join(HINTS)}.")
    parameters, notes = _paired(model.get_parameters(), program.inputs, "input")
    ports, said = _paired(model.get_results(), program.outputs, "output")
    notes += said
    known = _nodes(model, program)
    values = [port.input_value(0) for port in ports]
    for op in model.get_ops():
        for output in op.outputs():
            output.get_tensor().set_names(set())
    for name, output in known.items():
        output.get_tensor().add_names({TENSOR + name})
    inputs = tuple(
        dataclasses.replace(spec, dims=_dims(parameter, spec))
        for parameter, spec in zip(parameters, program.inputs, strict=True)
    )
    if frozen := [str(own) for own, spec in zip(inputs, program.inputs, strict=True) if own != spec]:
        notes.append(Note("lower", f"the adopted model has fixed sizes: {', '.join(frozen)}"))
    parameters = [_input(p, spec, notes) for p, spec in zip(parameters, program.inputs, strict=True)]
    results = [result(value, spec) for value, spec in zip(values, program.outputs, strict=True)]
    adopted = openvino.Model(results, parameters, "adopted")
    counted = f"{len(known)} of {_count(program)} nodes are known in it by their names"
    notes.insert(0, Note("lower", f"this model was converted by others, not by paritas: {counted}"))
    if not dtype:
        dtype = _default(adopted)
        notes.append(Note("lower", f"{dtype} is what OpenVINO computes in by itself on this machine"))
    openvino.save_model(adopted, str(directory / ENTRY), compress_to_fp16=False)
    settings = {"INFERENCE_PRECISION_HINT": HINTS[dtype], "adopted": True}
    return Lowered(ENTRY, settings, tuple(notes), inputs, dtype=dtype)


def _paired(
    nodes: Sequence[openvino.Node], specs: Sequence[TensorSpec], kind: str
) -> tuple[list[openvino.Node], list[Note]]:
    """The model's inputs or outputs in the program's order."""
    if len(nodes) == len(specs):
        named = [next((n for n in nodes if spec.name in _names(n)), None) for spec in specs]
        if None not in named and len({id(n) for n in named}) == len(specs):
            return named, []
        if not any(_names(n) & {spec.name for spec in specs} for n in nodes):
            pairs = ", ".join(f"{_called(n)} is {s.name}" for n, s in zip(nodes, specs, strict=True))
            return list(nodes), [Note("lower", f"the adopted model's {kind}s were matched by order: {pairs}")]
    raise InputError(
        f"The model's {len(nodes)} {kind}s are {', '.join(map(_called, nodes))}; the original's {len(specs)} are "
        f"{', '.join(spec.name for spec in specs)}. Convert it with the same ones, or give the original only those: "
        "inputs={...} of the names that the model has, or on the command line "
        f"{' '.join(f'--input {_called(node)}=SHAPE[:DTYPE]' for node in nodes)}."
    )


def _names(node: openvino.Node) -> set[str]:
    is_result = node.get_type_name() == "Result"
    return {*(node.input_value(0) if is_result else node.output(0)).get_names(), node.get_friendly_name()}


def _called(node: openvino.Node) -> str:
    return min(_names(node), key=lambda name: (name.isdigit(), name))


def _input(parameter: openvino.op.Parameter, spec: TensorSpec, notes: list[Note]) -> openvino.op.Parameter:
    """The parameter, or one of the program's dtype in its place."""
    kind = type_of(spec)
    own = parameter.get_element_type()
    if own == kind:
        return _renamed(parameter, spec)
    notes.append(
        Note("lower", f"the adopted model takes {spec.name} as {own.to_string()}: it is cast from {spec.dtype}")
    )
    wide = ops.parameter(parameter.get_partial_shape(), kind)
    cast = ops.convert(wide, own.to_string())
    for user in parameter.output(0).get_target_inputs():
        user.replace_source_output(cast.output(0))
    return _renamed(wide, spec)


def _renamed(parameter: openvino.op.Parameter, spec: TensorSpec) -> openvino.op.Parameter:
    parameter.output(0).get_tensor().add_names({spec.name})
    parameter.set_friendly_name(spec.name)
    return parameter


def _dims(parameter: openvino.op.Parameter, spec: TensorSpec) -> tuple[int | str, ...]:
    shape = parameter.get_partial_shape()
    if shape.rank.is_dynamic:
        return spec.dims
    if len(shape) != len(spec.dims):
        raise InputError(f"The model takes {spec.name} as {shape}, the original as {shown([spec])[0]}.")
    return tuple(d.get_length() if d.is_static else own for d, own in zip(shape, spec.dims, strict=True))


def _nodes(model: openvino.Model, program: Program) -> dict[str, openvino.Output]:
    """Node of the program -> the tensor that it is. A tensor in both graphs by name, operator and rank.

    A converter that writes operators in terms of others numbers what it makes of them too: where it has a node of an
    operator that the program does not have, no node of that operator is matched.
    """
    known = {n.name: n for n in program.graph.nodes if n.op == "call_function"}
    target_of: dict[str, str] = {}
    for op in model.get_ops():
        if said := _FRIENDLY.match(op.get_friendly_name()):
            target_of[said["node"]] = said["target"]
    theirs = defaultdict(set)
    for name, target in target_of.items():
        theirs[target].add(name)
    certain = {
        name
        for target, names in theirs.items()
        if all(name in known and str(known[name].target) == target for name in names)
        for name in names
    }
    found: dict[str, openvino.Output] = {}
    for op in model.get_ordered_ops():
        for output in op.outputs():
            for name in output.get_names():
                said = _TENSOR.match(name)
                if said and said["index"] == "0" and said["node"] in certain:
                    value = known[said["node"]].meta.get("val")
                    rank = output.get_partial_shape().rank
                    if rank.is_dynamic or rank.get_length() == getattr(value, "ndim", -1):
                        found[said["node"]] = output
    return found


def _count(program: Program) -> int:
    import torch

    return sum(isinstance(n.meta.get("val"), torch.Tensor) for n in program.graph.nodes if n.op == "call_function")


def _default(model: openvino.Model) -> str:
    hint = openvino.Core().compile_model(model, "CPU").get_property("INFERENCE_PRECISION_HINT")
    dtypes = {name: dtype for dtype, name in HINTS.items()}
    return dtypes.get(hint.to_string(), "float32")
