# SPDX-License-Identifier: Apache-2.0
"""The engine's side of a script that reproduces a divergence: source that makes the part and runs it."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from paritas.errors import LoweringError, TamperedPort
from paritas.run.torch.part import Part, tensors_of
from paritas.verify.bisect.script_torch import Identifiers
from paritas.verify.bisect.subprogram import LoweredAgain
from paritas.verify.bisect.trial import Laboratory

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class Side:
    """What a script says of an engine.

    imports, body: source; the body defines `build()`, which makes the model, and `run(model)`, which returns a
    dict from the variables of the outputs to arrays. tensors: what it reads from `TENSORS` besides the part's own.
    files: others that lie beside the script. about: how it runs, in words.
    """

    engine: str
    imports: tuple[str, ...]
    body: tuple[str, ...]
    tensors: Mapping[str, np.ndarray]
    about: str
    models: Mapping[str, Any] = dataclasses.field(
        default_factory=dict
    )  # file -> openvino.Model to save there


_MAKE = """
def make(kind, inputs, **attributes):
    opset, _, name = kind.partition(".")
    return NodeFactory(opset).create(name, inputs, attributes)


def constant(name):
    return ops.constant(TENSORS[name].numpy())
"""

_RUN_OPENVINO = """
def run(model):
    compiled = openvino.Core().compile_model(model, {device!r}, {config!r})
    found = compiled({{
        {feed}
    }})
    return {{
        {found}
    }}
"""


def openvino_side(
    session: Any, lab: Laboratory, part: Part, names: Identifiers, stem: str, *, as_calls: bool = True
) -> Side:
    """The part of the port's own graph: as calls of the opsets, or as a small IR beside the script.

    Raises `LoweringError` where calls cannot express it.
    """
    from paritas.run.openvino.source import source_of

    given = {n: lab.recorded.tensors[n] for n in lab.borders if n not in part.nodes}
    model = session.part_model(given, part.outputs)
    tensors: dict[str, np.ndarray] = {}
    feed: list[str] = []
    ports = [(p.get_names(), np.dtype(p.get_element_type().to_dtype()).name) for p in model.inputs]
    results = [port.get_names() for port in model.outputs]
    imports = [
        'sys.modules.setdefault("openvino_telemetry", None)  # nothing is reported over the network',
        "import openvino",
    ]
    if as_calls:
        source = source_of(model, names.new)
        ports = [(set(found), dtype) for _, found, dtype in source.inputs]
        results = [set(found) for found in source.outputs]
        tensors |= source.constants
        variables = ", ".join(variable for variable, _, _ in source.inputs)
        lines = [*source.lines, f'return openvino.Model(results, [{variables}], "part")']
        imports += ["import openvino.opset16 as ops", "from openvino.utils.node_factory import NodeFactory"]
        helpers, models = _MAKE.splitlines(), {}
    else:
        lines = [f'return openvino.Core().read_model(HERE / "{stem}.xml")']
        helpers, models = [], {f"{stem}.xml": model}
    for index, (found, dtype) in enumerate(ports):
        key, value = _fed(found, lab)
        tensors[names.of(key)] = value
        feed.append(f'{index}: TENSORS["{names.of(key)}"].numpy().astype("{dtype}"),')
    found_lines = [
        f'"{names.of(output)}": found[{index}],'
        for output in part.outputs
        for index, known in enumerate(results)
        if f"node/{output}" in known
    ]
    body = [*helpers, "", "", "def build():", *("    " + line for line in lines), ""]
    body += _RUN_OPENVINO.format(
        device=session.device,
        config=session.configuration,
        feed="\n        ".join(feed),
        found="\n        ".join(found_lines),
    ).splitlines()
    hint = session.configuration["INFERENCE_PRECISION_HINT"]
    return Side(
        "OpenVINO", tuple(imports), tuple(body), tensors, f"{session.device}, precision {hint}", models
    )


def _fed(names: set[str], lab: Laboratory) -> tuple[str, np.ndarray]:
    for name in sorted(names):
        if name in lab.recorded.feed:
            return name, lab.recorded.feed[name]
    for name in sorted(names):
        if name.removeprefix("node/") in lab.recorded.tensors:
            return name.removeprefix("node/"), lab.recorded.tensors[name.removeprefix("node/")]
    raise LoweringError(f"an input of the cut graph has no name that is known: {sorted(names)}")


_RUN_MINDSPORE = """
def build():
    ms.set_device("CPU")
    ms.set_context(mode=ms.{mode})
    cell = {cls}()
    cell.set_train(False)
    for name, key in {weights!r}.items():
        cell.parameters_dict()[name].set_data(ms.Tensor(TENSORS[key].numpy()))
    for name, key in {buffers!r}.items():
        cell._buffers[name] = ms.Tensor(TENSORS[key].numpy())
    return cell


def run(cell):
    found = cell(
        {feed}
    )
    found = found if isinstance(found, tuple) else (found,)
    return {{name: value.asnumpy() for name, value in zip({outputs!r}, found)}}
"""


def mindspore_side(
    again: LoweredAgain, mode: str, target: str, lab: Laboratory, part: Part, names: Identifiers
) -> Side:
    """The part as a generated cell, in graph mode or in PyNative mode. Raises `LoweringError`, `UnsupportedOps`."""
    from paritas.lower.mindspore.check import grammar
    from paritas.lower.mindspore.write.module import generate
    from paritas.lower.mindspore.write.weights import constants_for_file

    program = again.program(part, lab.recorded)
    module = generate(program, target=target)
    try:
        grammar.check(module.source, "the part")
    except TamperedPort as error:
        raise LoweringError(f"the generated cell is not of its own grammar: {error}") from error
    tree = ast.parse(module.source)
    defined = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    if clash := defined & RESERVED:
        raise LoweringError(f"the generated names {', '.join(sorted(clash))} are the script's own")
    lines = module.source.splitlines()
    imports = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
    first = imports[-1].end_lineno or 0
    buffers = constants_for_file(module.constants)
    own = own_tensors(lab, part, names)
    tensors: dict[str, np.ndarray] = {}

    def keys(values: Mapping[str, torch.Tensor]) -> dict[str, str]:
        """Variables of the weights: PyTorch's own ones where they are the same."""
        found = {}
        for name, value in values.items():
            theirs = own.get(names.of(name))
            same = theirs is not None and theirs.dtype == value.dtype and bool((theirs == value).all())
            found[name] = names.of(name if same else f"engine_{name}")
            tensors[found[name]] = value.detach().contiguous().numpy()
        return found

    weights, stored = keys(module.weights), keys(buffers)
    feed = []
    for spec in program.inputs:
        tensors[names.of(spec.name)] = lab.recorded.tensors[spec.name]
        feed.append(f'ms.Tensor(TENSORS["{names.of(spec.name)}"].numpy().astype("{spec.dtype}")),')
    body = [
        *lines[first:],
        *_RUN_MINDSPORE.format(
            mode="GRAPH_MODE" if mode == "graph" else "PYNATIVE_MODE",
            cls=module.class_name,
            weights=weights,
            buffers=stored,
            feed="\n        ".join(feed),
            outputs=tuple(names.of(name) for name in part.outputs),
        ).splitlines(),
    ]
    said = ["import mindspore as ms", *(ast.unparse(n) for n in imports)]
    return Side("MindSpore", tuple(dict.fromkeys(said)), tuple(body), tensors, f"CPU, {mode} mode")


#: What the script itself defines, so that nothing of a model may be called so.
RESERVED = frozenset({
    "HERE", "TENSORS", "EXPECTED", "TYPICAL", "ROUNDINGS", "OWN", "Path", "annotations", "build", "cast",
    "constant", "distance", "dtype", "found", "in_torch", "load_file", "main", "make", "ms", "nn", "np", "openvino",
    "ops", "Parameter", "Tensor", "initializer", "NodeFactory", "results", "run", "sys", "torch",
})  # fmt: skip


def own_tensors(lab: Laboratory, part: Part, names: Identifiers) -> dict[str, torch.Tensor]:
    """What PyTorch's side reads: the values at the border and the weights, by variable."""
    import torch

    found = {names.of(name): torch.from_numpy(np.array(lab.recorded.tensors[name])) for name in part.inputs}
    return found | {names.of(name): value.detach() for name, value in tensors_of(lab.program, part)}
