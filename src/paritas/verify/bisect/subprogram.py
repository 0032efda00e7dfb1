# SPDX-License-Identifier: Apache-2.0
"""A part of a program as a program of its own, with numbers for all sizes, lowered and run by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Graph, GraphModule, Node

from paritas import leftovers
from paritas.dtypes import dtype_name
from paritas.errors import LoweringError
from paritas.options import BuildOptions
from paritas.program import Artifact, Manifest, Program, Source, TensorSpec
from paritas.run.engine import engine as find_engine
from paritas.run.engine import lower
from paritas.run.torch.part import Part, Recorded, compute, tensors_of

#: The class that is generated for a part.
CLASS = "Part"


def subprogram(
    program: Program, part: Part, recorded: Recorded, weights: Mapping[str, torch.Tensor] | None = None
) -> Program:
    """`part` as a program: its inputs are the values at its border, under the names of their nodes.

    All sizes are those of `recorded`, all modules are dissolved into one, and weights have the names of their
    placeholders. weights: those to take instead of the program's own. Raises `LoweringError` for a part with a
    graph inside (a condition, a loop).
    """
    known = {node.name: node for node in program.graph.nodes}
    values = compute(program, part, recorded, _precision(program), all_members=True)
    held = {**dict(tensors_of(program, part)), **(weights or {})}
    kinds = {spec.arg.name: spec for spec in program.exported.graph_signature.input_specs}
    graph, copies = Graph(), {}
    specs: list[InputSpec] = []
    for name in (*part.weights, *part.inputs):
        copies[known[name]] = placeholder = graph.placeholder(name)
        placeholder.meta = dict(known[name].meta)
        placeholder.meta.pop("paritas_input", None)
        if name in held:
            placeholder.meta["val"] = _shape_of(held[name])
            is_parameter = kinds[name].kind == InputKind.PARAMETER
            kind = InputKind.PARAMETER if is_parameter else InputKind.CONSTANT_TENSOR
            specs.append(InputSpec(kind, TensorArgument(placeholder.name), name))
        else:
            placeholder.meta["val"] = _shape_of(_example(known[name], recorded))
            placeholder.meta["paritas_input"] = name
            specs.append(InputSpec(InputKind.USER_INPUT, TensorArgument(placeholder.name), None))

    def operand(node: Node) -> Any:
        return copies[node] if node in copies else recorded.numbers[node.name]

    for name in part.members:
        node = known[name]
        if node.op != "call_function" or isinstance(node.target, torch._ops.HigherOrderOperator):
            raise LoweringError(f"{name} = {node.target} has a graph inside, which is no part of its own.")
        copies[node] = made = graph.create_node(
            "call_function",
            node.target,
            torch.fx.node.map_arg(node.args, operand),
            torch.fx.node.map_arg(node.kwargs, operand),
            name=name,
        )
        made.meta = {key: value for key, value in node.meta.items() if key != "nn_module_stack"}
        made.meta["val"] = torch.utils._pytree.tree_map(_shape_of, values[name])
    graph.output(tuple(copies[known[name]] for name in part.outputs))
    graph.output_node().meta["val"] = tuple(copies[known[name]].meta["val"] for name in part.outputs)
    return _program(program, part, graph, specs, held)


def _program(
    program: Program, part: Part, graph: Graph, specs: list[InputSpec], held: Mapping[str, torch.Tensor]
) -> Program:
    named = {str(spec.target): spec.kind for spec in specs}
    parameters: dict[str, torch.Tensor | torch.nn.Parameter] = {
        name: torch.nn.Parameter(held[name], requires_grad=False)
        for name, kind in named.items()
        if kind == InputKind.PARAMETER
    }
    constants: dict[str, Any] = {name: held[name] for name, kind in named.items() if kind == InputKind.CONSTANT_TENSOR}
    outputs = [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(name), None) for name in part.outputs]
    old = program.exported
    exported = ExportedProgram(
        root=GraphModule({}, graph),
        graph=graph,
        graph_signature=ExportGraphSignature(specs, outputs),
        state_dict=parameters,
        range_constraints={},
        module_call_graph=old.module_call_graph,
        constants=constants,
        verifiers=old.verifiers,
    )
    nodes = {node.name: node for node in graph.nodes}
    return Program(
        exported=exported,
        inputs=tuple(_spec(nodes[name]) for name in part.inputs),
        outputs=tuple(_spec(nodes[name]) for name in part.outputs),
        structure={},
        origins={
            name: dataclasses.replace(program.origin(name), module="", module_class=CLASS) for name in part.members
        },
        modules=(),
        constants={},
        source=Source("module", model_class=CLASS),
        module_classes={"": CLASS},
        weights=parameters,
    )


def _precision(program: Program) -> str:
    from paritas.run.torch.walk import captured_dtype

    return dtype_name(captured_dtype(program))


def _example(node: Node, recorded: Recorded) -> torch.Tensor:
    return torch.from_numpy(np.array(recorded.tensors[node.name])).to(node.meta["val"].dtype)


def _shape_of(value: Any) -> Any:
    """A tensor without its data."""
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def _spec(node: Node) -> TensorSpec:
    value = node.meta["val"]
    return TensorSpec(node.name, dtype_name(value.dtype), tuple(int(n) for n in value.shape))


class LoweredAgain:
    """Computes parts as ports of their own: lowered anew, with the weights of the port on disk."""

    def __init__(self, program: Program, artifact: Artifact, mode: str) -> None:
        self._program, self._manifest, self._mode = program, artifact.manifest, mode
        self._weights = find_engine(artifact.manifest.engine).stored(program, artifact)

    def __call__(self, part: Part, recorded: Recorded, borders: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Output -> value. Raises `LoweringError`, `UnsupportedOps` or `EngineError`."""
        program = self.program(part, recorded)
        manifest = self._manifest
        with leftovers.temporary() as directory:
            lowered = lower(program, directory, BuildOptions(manifest.engine, manifest.dtype, target=manifest.target))
            small = Manifest(
                engine=manifest.engine,
                dtype=manifest.dtype,
                inputs=program.inputs,
                outputs=program.outputs,
                structure={},
                source=program.source,
                entry=lowered.entry,
                mode=self._mode,
                target=manifest.target,
                settings=lowered.settings,
            )
            session = find_engine(manifest.engine).load(Artifact(directory, small), mode=self._mode)
            try:
                feed = {spec.name: _fed(recorded.tensors[spec.name], spec.dtype) for spec in program.inputs}
                return dict(zip(part.outputs, session.run(feed), strict=True))
            finally:
                session.close()

    def program(self, part: Part, recorded: Recorded) -> Program:
        """The part, with the port's own weights."""
        held = {name: self._weights[name] for name in part.weights if name in self._weights}
        return subprogram(self._program, part, recorded, held)


def _fed(value: np.ndarray, dtype: str) -> np.ndarray:
    return np.ascontiguousarray(value.astype("float32" if dtype == "bfloat16" else dtype, copy=False))
