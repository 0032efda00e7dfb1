# SPDX-License-Identifier: Apache-2.0
"""A program whose sizes follow from the values of its inputs, for one value of these inputs.

`for t, h, w in grid_thw.tolist()` makes tensors that are as long as the numbers say. An engine that plans its
memory from shapes cannot run that; for one grid, all of these sizes are numbers, and it can.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from paritas.capture.constant_folding import fold_constants
from paritas.capture.normalise import copied, dims_of, name_of, normalise
from paritas.capture.symbolic_sizes import ITEM
from paritas.program import Note, Program, TensorSpec

#: Operators that make sizes of values.
_READS_VALUES = {*ITEM, "aten.repeat_interleave.Tensor", "aten.repeat_interleave.self_Tensor"}

#: An image's grid has three numbers, its size two, a box four.
_NUMBERS_PER_ROW = 4


def specialized(program: Program) -> Program:
    """`program` with numbers for the sizes that are read out of its inputs, if such inputs only describe sizes.

    These inputs keep the values of the example: `TensorSpec.value` and a note say so. Itself where there are none.
    """
    placeholders = {n.meta["paritas_input"]: n for n in program.graph.nodes if "paritas_input" in n.meta}
    by_node = dict(zip(placeholders.values(), program.inputs, strict=True))
    fixed = _read_for_sizes(program, by_node)
    if not fixed:
        return program
    exported = with_own_graph(program.exported)
    nodes = {node.name: node for node in exported.graph.nodes}
    examples = {nodes[node.name]: program.examples[by_node[node].name] for node in fixed}
    fold_constants(exported, examples)
    normalise(exported)
    inputs = tuple(_specialized(spec, node, nodes[node.name]) for node, spec in by_node.items())
    names = {by_node[node].name for node in fixed}
    inputs = tuple(
        dataclasses.replace(spec, value=program.examples[spec.name].tolist()) if spec.name in names else spec
        for spec in inputs
    )
    results = [node.meta["val"] for node in exported.graph.output_node().args[0] if isinstance(node, Node)]
    outputs = tuple(
        dataclasses.replace(spec, dims=dims_of(value)) for spec, value in zip(program.outputs, results, strict=True)
    )
    notes = [
        Note("lower", f"{spec.name}={spec.value} is fixed: sizes inside the model follow from its numbers")
        for spec in inputs
        if spec.name in names
    ]
    kept = {node.name for node in exported.graph.nodes}
    return dataclasses.replace(
        program,
        exported=exported,
        inputs=inputs,
        outputs=outputs,
        notes=(*program.notes, *notes),
        origins={name: origin for name, origin in program.origins.items() if name in kept},
    )


def _read_for_sizes(program: Program, inputs: Mapping[Node, TensorSpec]) -> list[Node]:
    """The inputs from which sizes are read, and which say nothing else."""
    if not any(name_of(node) in _READS_VALUES for node in program.graph.nodes):
        return []
    reached: dict[Node, set[Node]] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            # A weight is nothing that sizes may be read from.
            constant = node.name in program.exported.graph_signature.inputs_to_lifted_tensor_constants
            reached[node] = set() if constant else {node}
        else:
            reached[node] = set().union(*(reached[source] for source in node.all_input_nodes))
    found: set[Node] = set()
    for node in program.graph.nodes:
        if name_of(node) in _READS_VALUES and isinstance(node.meta.get("val"), torch.Tensor | torch.SymInt):
            sources = reached[node]
            if all(source in inputs and _describes_sizes(inputs[source], program) for source in sources):
                found |= sources
    return [node for node in inputs if node in found]


def _describes_sizes(spec: TensorSpec, program: Program) -> bool:
    """A few whole numbers per row, or counts that were prepared from such: not a text, nor a mask over one."""
    if not spec.dtype.startswith(("int", "uint")) or spec.high is not None or spec.name not in program.examples:
        return False
    if spec.name in program.prepared:
        return True
    shape = program.examples[spec.name].shape
    return not shape or shape[-1] <= _NUMBERS_PER_ROW


def _specialized(spec: TensorSpec, before: Node, after: Node) -> TensorSpec:
    # Names of equal sizes may have been united: only what is a number now is written anew.
    sizes = zip(spec.dims, dims_of(before.meta["val"]), dims_of(after.meta["val"]), strict=True)
    return dataclasses.replace(spec, dims=tuple(now if now != was else dim for dim, was, now in sizes))


def with_own_graph(exported: ExportedProgram) -> ExportedProgram:
    """With a graph of its own; the weights are shared."""
    graph = copied(exported.graph)
    module = torch.fx.GraphModule(exported.graph_module, graph)
    module.meta = dict(exported.graph_module.meta)
    return ExportedProgram(
        root=module,
        graph=graph,
        graph_signature=copy.deepcopy(exported.graph_signature),
        state_dict=exported.state_dict,
        range_constraints=exported.range_constraints,
        module_call_graph=exported.module_call_graph,
        example_inputs=exported.example_inputs,
        constants=dict(exported.constants),
        verifiers=exported.verifiers,
    )
