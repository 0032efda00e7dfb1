# SPDX-License-Identifier: Apache-2.0
"""An engine of the tests' own, made by following CONTRIBUTING's "Add an engine": NumPy, and a handful of operators."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paritas import contents
from paritas.errors import EngineError, UnsupportedOps
from paritas.lower.result import Lowered
from paritas.options import BuildOptions
from paritas.program import Artifact, Program
from paritas.run.engine import Engine

Feed = Mapping[str, np.ndarray]


def _layer_norm(x: Any, sizes: Any, weight: Any, bias: Any, eps: float, *_: Any) -> np.ndarray:
    axes = tuple(range(-len(sizes), 0))
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + np.float32(eps)) * weight + bias


#: ATen overload -> what computes it.
RULES = {
    "aten.linear.default": lambda x, weight, bias: x @ weight.T + bias,
    "aten.layer_norm.default": _layer_norm,
    "aten.relu.default": lambda x: np.maximum(x, 0),
    "aten.unsqueeze.default": np.expand_dims,
    "aten.where.ScalarOther": lambda mask, x, other: np.where(mask, x, np.asarray(other, x.dtype)),
    "aten.add.Tensor": lambda x, other: np.add(x, other, dtype=x.dtype),
    "aten.mul.Tensor": lambda x, other: np.multiply(x, other, dtype=x.dtype),
    "aten.gt.Scalar": np.greater,
    "aten.__and__.Tensor": np.bitwise_and,
    "aten.mean.dim": lambda x, axes: x.mean(tuple(axes)),
}


def lower(program: Program, directory: Path, options: BuildOptions) -> Lowered:
    """A list of steps as JSON, and the weights beside it."""
    from safetensors.numpy import save_file
    from torch.fx import map_arg

    from paritas.capture.forward_names import weight
    from paritas.capture.normalise import name_of

    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    if missing := [(name_of(n), program.origin(n.name)) for n in calls if name_of(n) not in RULES]:
        raise UnsupportedOps("toy", missing)
    held = [n for n in program.graph.nodes if n.op == "placeholder" and "paritas_input" not in n.meta]
    save_file({n.name: weight(program.exported, n).detach().numpy() for n in held}, directory / "toy.weights")
    steps = [[n.name, name_of(n), map_arg(n.args, lambda of: {"node": of.name})] for n in calls]
    outputs = [node.name for node in program.graph.output_node().args[0]]
    (directory / "toy.json").write_text(json.dumps({"steps": steps, "outputs": outputs}))
    return Lowered("toy.json", {})


class Toy(Engine):
    name, label, package = "toy", "Toy", "numpy"

    def precisions(self, device: str = "") -> Mapping[str, str]:
        return {"float32": ""}

    def load(
        self,
        artifact: Artifact,
        *,
        mode: str = "",
        precision: str = "",
        device: str = "",
        config: Mapping[str, str] | None = None,
    ) -> ToySession:
        if mode or self.device(device) not in ("", "CPU") or precision not in ("", "float32"):
            raise EngineError("toy computes in float32, on the CPU, in one way.")
        return ToySession(artifact)

    def trial(self) -> None:
        assert (np.ones((2, 3)) @ np.full((3, 4), 2) == 6).all()


class ToySession:
    precision = "float32"
    observed_with = computed_with = "every step is a call of NumPy's"
    cut_with, cut_mode, cut_runs_all = "the steps of the part", "", False

    def __init__(self, artifact: Artifact) -> None:
        from safetensors.numpy import load

        read = json.loads(bytes(contents.take(artifact, artifact.manifest.entry)))
        self._steps, self._outputs = read["steps"], read["outputs"]
        self._weights = load(bytes(contents.take(artifact, "toy.weights")))

    def run(self, feed: Feed) -> list[np.ndarray]:
        found = self._computed(feed, {}, self.nodes())
        return [np.array({**feed, **found}[name]) for name in self._outputs]

    def close(self) -> None:
        self._steps = []

    def observe(self, feed: Feed) -> Feed:
        return self._computed(feed, {}, self.nodes())

    def nodes(self) -> set[str]:
        return {name for name, _, _ in self._steps}

    def lockstep(self, feed: Feed, given: Feed) -> Feed:
        return self._computed(feed, given, given)

    def borders(self) -> list[frozenset[str]]:
        return [frozenset({name}) for name in self.nodes()]

    def part(self, feed: Feed, given: Feed, outputs: Collection[str]) -> Feed:
        return self._computed(feed, given, outputs)

    def _computed(self, feed: Feed, given: Feed, shown: Collection[str]) -> dict[str, np.ndarray]:
        """Values of the steps in `shown`. Each reads the *given* values before it."""
        known, found = {**self._weights, **feed}, {}
        for name, target, args in self._steps:
            given_args = [known[a["node"]] if isinstance(a, dict) else a for a in args]
            value = np.asarray(RULES[target](*given_args))
            found[name], known[name] = value, given.get(name, value)
        return {name: found[name] for name in shown}
