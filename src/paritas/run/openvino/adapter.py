# SPDX-License-Identifier: Apache-2.0
"""What OpenVINO is: on the CPU, or on the device that `load` is given."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from paritas.errors import EngineError
from paritas.run.engine import Engine

if TYPE_CHECKING:
    from pathlib import Path

    from paritas.program import Artifact, Note, Program
    from paritas.run.openvino.session import OpenVINOSession
    from paritas.run.script import Side, ToWrite


class OpenVINO(Engine):
    name, label, package = "openvino", "OpenVINO", "openvino"
    optimum = "OV"
    rank = 0
    weight_formats = ("int8", "int4")
    #: It lowers the precision of a float32 graph by itself.
    captured_in = "float32"
    lacks: ClassVar[Mapping[str, str]] = {"float64": "OpenVINO's CPU plugin has no float64"}
    own_state = True
    #: Its own graph can be cut.
    lowers_parts = False
    script_names = frozenset({"NodeFactory", "constant", "make", "openvino", "ops", "results"})

    def precisions(self) -> Mapping[str, str]:
        """dtype -> "" where the CPU computes in it, else what happens instead and why."""
        from paritas.run.openvino.session import CAPABILITIES, core

        able = set(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        name = str(core().get_property("CPU", "FULL_DEVICE_NAME")).strip()
        return {
            dtype: "" if word in able else f"the arithmetic is float32: {name} does not compute in {dtype}"
            for dtype, word in CAPABILITIES.items()
        }

    def load(self, artifact: Artifact, *, mode: str = "", precision: str = "", device: str = "") -> OpenVINOSession:
        """Compile the artifact's model.

        precision: the dtype to compute in, by default the artifact's; float32 where the device does not
        have it. device: as OpenVINO names it, "CPU" by default. Raises `EngineError`.
        """
        from paritas.run.openvino.session import HINTS, OpenVINOSession

        if mode not in self.modes:
            raise EngineError(f"openvino has no mode {mode!r}: it has one way of running.")
        if precision and precision not in HINTS:
            raise EngineError(f"openvino has no precision {precision!r}; it has {', '.join(HINTS)}.")
        return OpenVINOSession(artifact, precision or artifact.manifest.dtype, device or "CPU")

    def beside(self, program: Program, directory: Path) -> tuple[Note, ...]:
        """The tokenizer, and what sentence-transformers and OpenVINO Model Server read."""
        from paritas.caches import keeps_inside
        from paritas.lower.openvino import configuration, serving, tokenizers

        generates, component = keeps_inside(program), program.source.component
        configuration.for_sentence_transformers(directory)
        if not generates and (component or not any(spec.name == "input_ids" for spec in program.inputs)):
            return ()
        notes = tokenizers.write(directory, needed=generates)
        if not component:
            serving.write(directory, generates=generates)
        return notes

    def trial(self) -> None:
        from paritas.run.openvino import trial

        trial.compute()

    def scripts(self) -> Sequence[Callable[[ToWrite], Side]]:
        from paritas.run.openvino.script import side

        return (functools.partial(side, as_calls=True), functools.partial(side, as_calls=False))
