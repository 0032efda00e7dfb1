# SPDX-License-Identifier: Apache-2.0
"""What MindSpore is: on the CPU, in Graph or PyNative mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from paritas.errors import EngineError
from paritas.run.engine import Engine
from paritas.run.turns import in_turn

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from paritas.program import Artifact, Program
    from paritas.run.learning import Task
    from paritas.run.mindspore.learner import MindSporeLearner
    from paritas.run.mindspore.session import MindSporeSession
    from paritas.run.processes import Collectives
    from paritas.run.script import Side, ToWrite


class MindSpore(Engine):
    name, label, package = "mindspore", "MindSpore", "mindspore"
    rank = 1
    modes: ClassVar[Mapping[str, str]] = {"graph": "Graph", "pynative": "PyNative"}
    targets = ("cpu", "ascend")
    needs_static_sizes = True
    goes_on = True
    differentiates = trains = True
    script_names = frozenset({"Parameter", "Tensor", "initializer", "ms", "nn", "ops"})

    def precisions(self, device: str = "") -> Mapping[str, str]:
        """dtype -> "" where the CPU backend computes in it, else what happens instead and why."""
        return {
            "float32": "",
            "float16": "",
            "bfloat16": "run as float32: MindSpore's CPU backend has no bfloat16 kernels for MatMul, Softmax or Gather",
        }

    @in_turn
    def load(
        self,
        artifact: Artifact,
        *,
        mode: str = "",
        precision: str = "",
        device: str = "",
        config: Mapping[str, str] | None = None,
    ) -> MindSporeSession:
        """Execute the generated module (checked before) and load its weights.

        mode: "graph" (compiled at the first call of each shape) or "pynative"; the artifact's by default.
        Raises `EngineError`, `PortError` for weights that do not fit, `TamperedPort` for a foreign module.
        """
        from paritas.run.mindspore.session import MindSporeSession

        mode = mode or artifact.manifest.mode or "graph"
        if mode not in self.modes:
            raise EngineError(f"mindspore has no mode {mode!r}; it has {', '.join(self.modes)}.")
        if precision and precision != artifact.manifest.dtype:
            raise EngineError(
                f"This port is {artifact.manifest.dtype}; mindspore computes in the dtype of the weights. "
                f"Port the model again with dtype={precision!r}."
            )
        self.device(device)
        return MindSporeSession(artifact, mode)

    def expect(self, *coming: torch.nn.Module | Artifact) -> None:
        from paritas.run.mindspore import convolutions

        convolutions.expect(*coming)

    def launched(self, processes: int, port: int, logs: Path, script: Sequence[str]) -> list[str]:
        from paritas.run.mindspore.processes import command

        return command(processes, port, logs, script)

    def join(self) -> Collectives:
        from paritas.run.mindspore.processes import MindSporeCollectives

        return MindSporeCollectives()

    def learner(self, task: Task) -> MindSporeLearner:
        from paritas.run.mindspore.learner import MindSporeLearner

        return MindSporeLearner(task)

    def trial(self) -> None:
        from paritas.run.mindspore.session import imported

        ms = imported()
        from paritas.run.mindspore import trial

        trial.compute(ms)

    def stored(self, program: Program, artifact: Artifact) -> Mapping[str, torch.Tensor]:
        from paritas.run.mindspore.script import stored

        return stored(program, artifact)

    def scripts(self) -> Sequence[Callable[[ToWrite], Side]]:
        from paritas.run.mindspore.script import side

        return (side,)
