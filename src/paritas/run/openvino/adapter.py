# SPDX-License-Identifier: Apache-2.0
"""What OpenVINO is: on the CPU, or on the device that `load` is given."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from paritas.errors import EngineError
from paritas.run.engine import Engine
from paritas.size_names import shown

if TYPE_CHECKING:
    from pathlib import Path

    from paritas.program import Artifact, Manifest, Note, Program
    from paritas.run.openvino.session import OpenVINOSession
    from paritas.run.script import Side, ToWrite


class OpenVINO(Engine):
    name, label, package = "openvino", "OpenVINO", "openvino"
    optimum = "OV"
    rank = 0
    weight_formats = ("int8", "int4", "bf16", "fp16")
    #: It lowers the precision of a float32 graph by itself.
    captured_in = "float32"
    lacks: ClassVar[Mapping[str, str]] = {"float64": "OpenVINO's CPU plugin has no float64"}
    own_state = goes_on = True
    streams_weights = True
    #: Its own graph can be cut.
    lowers_parts = False
    script_names = frozenset({"NodeFactory", "constant", "make", "openvino", "ops", "results"})

    def precisions(self, device: str = "") -> Mapping[str, str]:
        """dtype -> "" where the device computes in it, else what happens instead and why."""
        from paritas.run.openvino import devices
        from paritas.run.openvino.session import CAPABILITIES, computed_on

        device = devices.named(device)
        name = devices.found().get(device) or device
        return {
            dtype: ""
            if (does := computed_on(device, dtype)) == dtype
            else f"the arithmetic is {does}: {name} does not compute in {dtype}"
            for dtype in CAPABILITIES
        }

    def devices(self) -> Mapping[str, str]:
        from paritas.run.openvino import devices

        return devices.found()

    def device(self, asked: str) -> str:
        from paritas.run.openvino import devices

        return devices.named(asked) if asked else ""

    def needs_fixed_sizes_on(self, device: str) -> bool:
        from paritas.run.openvino import devices

        return devices.needs_fixed_sizes(device)

    def configured(self, asked: Mapping[str, Any], device: str = "") -> dict[str, str]:
        from paritas.run.openvino import devices

        return devices.checked(asked, devices.named(device)) if asked else {}

    def lasting(self, config: Mapping[str, str]) -> dict[str, str]:
        from paritas.lower.openvino import configuration

        return configuration.lasting(config)

    def notes_on(self, config: Mapping[str, str]) -> list[Note]:
        from paritas.lower.openvino.configuration import NUMBERS, lasting
        from paritas.program import Note

        return [
            Note("lower", f"{NUMBERS[name].format(value)} ({name}={value})") for name, value in lasting(config).items()
        ]

    def load(
        self,
        artifact: Artifact,
        *,
        mode: str = "",
        precision: str = "",
        device: str = "",
        config: Mapping[str, str] | None = None,
    ) -> OpenVINOSession:
        """Compile the artifact's model.

        precision: the dtype to compute in, by default the artifact's; what the device has instead where it does not
        have it. device: "CPU" by default, "GPU", "GPU.1", "NPU", "AUTO" or "AUTO:GPU,CPU". Raises `EngineError`.
        """
        from paritas.run.openvino import devices
        from paritas.run.openvino.session import HINTS, OpenVINOSession

        if mode not in self.modes:
            raise EngineError(f"openvino has no mode {mode!r}: it has one way of running.")
        if precision and precision not in HINTS:
            raise EngineError(f"openvino has no precision {precision!r}; it has {', '.join(HINTS)}.")
        device = devices.named(device)
        inputs = artifact.manifest.inputs
        texts = zip(shown(inputs), inputs, strict=True)
        free = [text for text, spec in texts if any(isinstance(dim, str) for dim in spec.dims)]
        if free and self.needs_fixed_sizes_on(device):
            raise EngineError(
                f"{device} runs models of fixed sizes only, and this port leaves some free: {', '.join(free)}. "
                f"Make one without:   paritas port SOURCE --static --device {device} --out DIR"
            )
        properties = devices.together(artifact.manifest.settings.get("ov_config", {}), config or {})
        return OpenVINOSession(artifact, precision or artifact.manifest.dtype, device, properties)

    def pages(
        self,
        directory: Path,
        manifest: Manifest,
        *,
        device: str = "",
        config: Mapping[str, str] | None = None,
        context: int,
        together: int,
    ) -> Callable[[], Any]:
        from paritas.run.openvino import devices, paged

        properties = {
            **paged.said_in(directory),
            **devices.together(manifest.settings.get("ov_config", {}), config or {}),
        }
        on = devices.named(device)
        return lambda: paged.Paged(directory, properties, on, context=context, together=together)

    def beside(self, program: Program, directory: Path) -> tuple[Note, ...]:
        """The tokenizer, and what sentence-transformers and OpenVINO Model Server read."""
        from paritas.caches import keeps_inside
        from paritas.lower.openvino import configuration, serving, tokenizers

        generates, component = keeps_inside(program), program.source.component
        configuration.for_sentence_transformers(directory)
        tokenizers.write_extractor(directory)
        if not generates and (component or not any(spec.name == "input_ids" for spec in program.inputs)):
            return ()
        notes = tokenizers.write(directory, needed=generates)
        if component in ("", "language_model"):  # with images before the text or without, the server's graph is one
            serving.write(directory, generates=generates)
        return notes

    def beside_pipeline(self, directory: Path) -> None:
        """The tokenizers."""
        from paritas.lower.openvino import tokenizers

        for place in sorted(directory.glob("tokenizer*")):
            tokenizers.write(place, needed=False)

    def trial(self) -> None:
        from paritas.run.openvino import trial

        trial.compute()

    def scripts(self) -> Sequence[Callable[[ToWrite], Side]]:
        from paritas.run.openvino.script import side

        return (functools.partial(side, as_calls=True), functools.partial(side, as_calls=False))
