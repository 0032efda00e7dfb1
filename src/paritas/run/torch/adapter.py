# SPDX-License-Identifier: Apache-2.0
"""What PyTorch is among the engines: the original itself, behind the contract that all of them sign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from paritas.run.engine import Engine

if TYPE_CHECKING:
    from paritas.program import Artifact, Program
    from paritas.run.learning import Task
    from paritas.run.session import Session
    from paritas.run.torch.learner import TorchLearner
    from paritas.run.torch.session import EagerSession


class Torch(Engine):
    name, label, package = "torch", "PyTorch", "torch"
    rank = 2
    differentiates = True
    lowers_parts = False
    is_original = True
    extra = "port"

    def precisions(self, device: str = "") -> Mapping[str, str]:
        from paritas.run.torch.walk import DTYPES

        return dict.fromkeys(DTYPES, "")

    def device(self, asked: str) -> str:
        """As torch spells it: it says itself what it does not have."""
        return asked.lower()

    def load(
        self,
        artifact: Artifact,
        *,
        mode: str = "",
        precision: str = "",
        device: str = "",
        config: Mapping[str, str] | None = None,
    ) -> EagerSession:
        """The original's class with the port's weights, in eager mode: see `eager_session`."""
        from paritas.run.torch.session import eager_session

        return eager_session(artifact, mode, precision, device)

    def start(
        self, program: Program, artifact: Artifact, *, device: str = "", config: Mapping[str, str] | None = None
    ) -> Session:
        """The captured graph, node by node."""
        from paritas.run.torch.session import TorchSession

        return TorchSession(program, artifact.manifest.dtype)

    def learner(self, task: Task) -> TorchLearner:
        from paritas.run.torch.learner import TorchLearner

        return TorchLearner(task)

    def trial(self) -> None:
        """Computes a product, and imports what captures models of transformers."""
        import torch
        from transformers.exporters import DynamoExporter  # noqa: F401

        got = torch.nn.functional.linear(torch.ones(2, 3), torch.full((4, 3), 2.0))
        assert got.shape == (2, 4) and bool((got == 6).all()), got
