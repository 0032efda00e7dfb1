# SPDX-License-Identifier: Apache-2.0
"""OpenVINO's side of a script that shows a divergence: the part cut out of the port's own graph."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import openvino

from paritas.errors import LoweringError
from paritas.run.openvino import source
from paritas.run.script import Side, ToWrite

if TYPE_CHECKING:
    from paritas.run.torch.part import Recorded

_MAKE = """
def make(kind, inputs, **attributes):
    opset, _, name = kind.partition(".")
    return NodeFactory(opset).create(name, inputs, attributes)


def constant(name):
    return ops.constant(TENSORS[name].numpy())
"""

_RUN = """
def run(model):
    compiled = openvino.Core().compile_model(model, {device!r}, {config!r})
    found = compiled({{
        {feed}
    }})
    return {{
        {found}
    }}
"""


def side(it: ToWrite, *, as_calls: bool) -> Side:
    """The part of the port's own graph: as calls of the opsets, or as a small IR beside the script.

    Raises `LoweringError` where calls cannot express it.
    """
    session, names = it.session, it.names
    given = {n: it.recorded.tensors[n] for n in it.borders if n not in it.part.nodes}
    model = session.part_model(given, it.part.outputs)
    tensors: dict[str, np.ndarray] = {}
    feed: list[str] = []
    ports = [(p.get_names(), np.dtype(p.get_element_type().to_dtype()).name) for p in model.inputs]
    results = [port.get_names() for port in model.outputs]
    imports = [
        'sys.modules.setdefault("openvino_telemetry", None)  # nothing is reported over the network',
        "import openvino",
    ]
    if as_calls:
        calls = source.source_of(model, names.new)
        ports = [(set(found), dtype) for _, found, dtype in calls.inputs]
        results = [set(found) for found in calls.outputs]
        tensors |= calls.constants
        variables = ", ".join(variable for variable, _, _ in calls.inputs)
        lines = [*calls.lines, f'return openvino.Model(results, [{variables}], "part")']
        imports += ["import openvino.opset16 as ops", "from openvino.utils.node_factory import NodeFactory"]
        helpers, files = _MAKE.splitlines(), {}
    else:
        lines = [f'return openvino.Core().read_model(HERE / "{it.stem}.xml")']
        helpers, files = [], {f"{it.stem}.xml": functools.partial(_save, model)}
    for index, (found, dtype) in enumerate(ports):
        key, value = _fed(found, it.recorded)
        tensors[names.of(key)] = value
        feed.append(f'{index}: TENSORS["{names.of(key)}"].numpy().astype("{dtype}"),')
    found_lines = [
        f'"{names.of(output)}": found[{index}],'
        for output in it.part.outputs
        for index, known in enumerate(results)
        if f"node/{output}" in known
    ]
    body = [*helpers, "", "", "def build():", *("    " + line for line in lines), ""]
    body += _RUN.format(
        device=session.device,
        config=session.configuration,
        feed="\n        ".join(feed),
        found="\n        ".join(found_lines),
    ).splitlines()
    hint = session.configuration["INFERENCE_PRECISION_HINT"]
    return Side("OpenVINO", tuple(imports), tuple(body), tensors, f"{session.device}, precision {hint}", files)


def _save(model: openvino.Model, path: str) -> None:
    openvino.save_model(model, path, compress_to_fp16=False)


def _fed(names: set[str], recorded: Recorded) -> tuple[str, np.ndarray]:
    for name in sorted(names):
        if name in recorded.feed:
            return name, recorded.feed[name]
    for name in sorted(names):
        if name.removeprefix("node/") in recorded.tensors:
            return name.removeprefix("node/"), recorded.tensors[name.removeprefix("node/")]
    raise LoweringError(f"an input of the cut graph has no name that is known: {sorted(names)}")
