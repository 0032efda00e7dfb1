# SPDX-License-Identifier: Apache-2.0
"""The engines that the cases run on, and how a value of torch looks when it comes back from them."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gaps
import gaps_openvino
import numpy as np
import torch
from gaps import Gap, ModuleGap, SampleGap
from making import Case

from paritas.lower.composed import SHARED
from paritas.lower.openvino.composed import COMPOSED
from paritas.lower.registry import lowerings
from paritas.options import BuildOptions
from paritas.program import Artifact, Manifest, Note, Program
from paritas.run.engine import engine, lower


@dataclasses.dataclass(frozen=True)
class UnderTest:
    """An engine. `modes`: the ways of running in which every case must agree."""

    name: str
    modes: Sequence[str]
    gaps: Sequence[Gap]
    sample_gaps: Sequence[SampleGap]
    module_gaps: Sequence[ModuleGap]
    widens: bool = False  # whether every float is computed, and float16 crosses the border, as float32

    def __str__(self) -> str:
        return self.name

    @property
    def compositions(self) -> Mapping[str, Any]:
        """What the engine's lowering writes in other operators by functions of its own."""
        return COMPOSED if self.name == "openvino" else SHARED

    @property
    def lowerings(self) -> Mapping[str, Any]:
        return lowerings(self.name)

    def gap_of(self, case: Case) -> Gap | None:
        return next((gap for gap in self.gaps if gap.covers(case)), None)

    def sample_gap_of(self, case: Case) -> SampleGap | None:
        return next((gap for gap in self.sample_gaps if gap.covers(case)), None)

    def lower(self, program: Program) -> tuple[Note, ...]:
        """What is said of it, written into a directory that is gone afterwards. Raises what the lowering raises."""
        with tempfile.TemporaryDirectory() as directory:
            return lower(program, Path(directory), BuildOptions(self.name, "float32")).notes

    @contextlib.contextmanager
    def running(self, program: Program) -> Iterator[Any]:
        """The program lowered, written and loaded, as a session."""
        with tempfile.TemporaryDirectory() as directory:
            lowered = lower(program, Path(directory), BuildOptions(self.name, "float32"))
            manifest = Manifest(
                engine=self.name, dtype="float32", inputs=lowered.inputs or program.inputs,
                outputs=lowered.outputs or program.outputs, structure={}, source=program.source,
                entry=lowered.entry, settings=lowered.settings,
            )  # fmt: skip
            session = engine(self.name).load(Artifact(Path(directory), manifest), mode=self.modes[-1])
            try:
                yield session
            finally:
                session.close()

    def run(self, session: Any, mode: str, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        if mode:
            session.mode = mode
        return session.run(feed)

    def array(self, value: torch.Tensor) -> np.ndarray:
        """As a session takes it and gives it back: NumPy has no bfloat16."""
        whole = value.resolve_conj().resolve_neg()
        if whole.dtype is torch.complex32:
            whole = whole.to(torch.complex64)
        if whole.dtype is torch.bfloat16 or (self.widens and whole.dtype is torch.float16):
            whole = whole.float()
        return np.asarray(whole.numpy(), order="C")


MINDSPORE = UnderTest("mindspore", ("pynative", "graph"), gaps.GAPS, gaps.SAMPLE_GAPS, gaps.MODULE_GAPS)
OPENVINO = UnderTest(
    "openvino", ("",), gaps_openvino.GAPS, gaps_openvino.SAMPLE_GAPS, gaps_openvino.MODULE_GAPS,
    widens=True,
)  # fmt: skip
ENGINES = {"mindspore": MINDSPORE, "openvino": OPENVINO}
