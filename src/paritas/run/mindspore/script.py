# SPDX-License-Identifier: Apache-2.0
"""MindSpore's side of a script that shows a divergence: the part lowered again, with the port's weights."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from paritas import contents
from paritas.errors import LoweringError, TamperedPort
from paritas.lower.mindspore.check import grammar
from paritas.lower.mindspore.write.module import generate
from paritas.lower.mindspore.write.weights import collect, constants_for_file
from paritas.program import Artifact, Program
from paritas.run.script import Side, ToWrite

if TYPE_CHECKING:
    import torch

_RUN = """
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


def side(it: ToWrite) -> Side:
    """The part as a generated cell, in graph mode or in PyNative mode. Raises `LoweringError`, `UnsupportedOps`."""
    program, names = it.program(), it.names
    module = generate(program, target=it.target)
    try:
        grammar.check(module.source, "the part")
    except TamperedPort as error:
        raise LoweringError(f"the generated cell is not of its own grammar: {error}") from error
    tree = ast.parse(module.source)
    defined = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    if clash := defined & it.reserved:
        raise LoweringError(f"the generated names {', '.join(sorted(clash))} are the script's own")
    lines = module.source.splitlines()
    imports = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
    first = imports[-1].end_lineno or 0
    buffers = constants_for_file(module.constants)
    tensors: dict[str, np.ndarray] = {}

    def keys(values: Mapping[str, torch.Tensor]) -> dict[str, str]:
        """Variables of the weights: PyTorch's own ones where they are the same."""
        found = {}
        for name, value in values.items():
            theirs = it.own.get(names.of(name))
            same = theirs is not None and theirs.dtype == value.dtype and bool((theirs == value).all())
            found[name] = names.of(name if same else f"engine_{name}")
            tensors[found[name]] = value.detach().contiguous().numpy()
        return found

    weights, kept = keys(module.weights), keys(buffers)
    feed = []
    for spec in program.inputs:
        tensors[names.of(spec.name)] = it.recorded.tensors[spec.name]
        feed.append(f'ms.Tensor(TENSORS["{names.of(spec.name)}"].numpy().astype("{spec.dtype}")),')
    body = [
        *lines[first:],
        *_RUN.format(
            mode="GRAPH_MODE" if it.mode == "graph" else "PYNATIVE_MODE",
            cls=module.class_name,
            weights=weights,
            buffers=kept,
            feed="\n        ".join(feed),
            outputs=tuple(names.of(name) for name in it.part.outputs),
        ).splitlines(),
    ]
    said = ["import mindspore as ms", *(ast.unparse(n) for n in imports)]
    return Side("MindSpore", tuple(dict.fromkeys(said)), tuple(body), tensors, f"CPU, {it.mode} mode")


def stored(program: Program, artifact: Artifact) -> dict[str, torch.Tensor]:
    """Placeholder -> the tensor that the port's files have for it, where its shape and dtype are still the same."""
    from safetensors.torch import load

    found: dict[str, torch.Tensor] = {}
    shards = artifact.manifest.settings.get("shards") or ["model.safetensors"]
    for file in (*shards, "constants.safetensors"):
        if not contents.has(artifact, file):
            continue
        tensors = load(bytes(contents.take(artifact, file)))
        weights = collect(program)
        for placeholder, name in weights.names.items():
            value = tensors.get(name)
            known = weights.values[name]
            if value is not None and (value.shape, value.dtype) == (known.shape, known.dtype):
                found[placeholder] = value
    return found
