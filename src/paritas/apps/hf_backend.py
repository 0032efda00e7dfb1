# SPDX-License-Identifier: Apache-2.0
"""MindSpore as an export backend of transformers. Importing this module registers it.

import paritas.apps.hf_backend
from transformers.exporters import AutoHfExporter, ExportedModel

exporter = AutoHfExporter.from_config({"export_format": "mindspore"})
exported = exporter.export(model, inputs, {"dynamic": True})
exported(**inputs).last_hidden_state            # runs on MindSpore
exported.save_pretrained("exported")            # mindspore_model.py, .safetensors and .json
ExportedModel.from_pretrained("exported")
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import weakref
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers.exporters import DynamoConfig, DynamoExporter, ExportMetadata, ModelRunner, register_backend

from paritas import leftovers
from paritas.capture import assemble
from paritas.capture.export import quiet
from paritas.errors import CaptureError, PortError, TamperedPort
from paritas.lower.mindspore.lower import lower
from paritas.making import build_options, manifest_of
from paritas.program import Artifact, Manifest
from paritas.run.mindspore.adapter import MindSpore
from paritas.store.manifest import manifest_from_json, manifest_to_json

__all__ = ["MindSporeConfig", "MindSporeExporter", "MindSporeModelRunner", "MindSporeProgram"]


@dataclasses.dataclass
class MindSporeConfig(DynamoConfig):
    """How to export to MindSpore: `DynamoConfig`'s fields, the target whose idioms to use, and the mode to run in."""

    export_format: str = "mindspore"  # type: ignore[assignment]
    target: str = "cpu"  # "cpu" | "ascend"
    mode: str = "graph"  # "graph" | "pynative"


class MindSporeProgram:
    """A generated module and its weights, in a directory; what the exporter returns as the program."""

    def __init__(self, artifact: Artifact, *, temporary: bool = False) -> None:
        self.artifact = artifact
        if temporary:
            weakref.finalize(self, leftovers.remove, artifact.directory)

    @property
    def source(self) -> str:
        """The generated MindSpore code."""
        return self.artifact.entry.read_text(encoding="utf-8")

    def __repr__(self) -> str:
        return f"<MindSporeProgram {self.artifact.manifest.settings['class']}>"


class MindSporeExporter(DynamoExporter):
    """Exports a `PreTrainedModel` to MindSpore source and the checkpoint that it loads."""

    export_format = "mindspore"  # type: ignore[assignment]
    config_class = MindSporeConfig
    program_prefix = "mindspore_"
    program_suffix = ".py"

    required_packages = ["torch", "mindspore"]  # noqa: RUF012 - as declared by the base class
    tested_versions = {"torch": "2.13.0", "mindspore": "2.10.0"}  # noqa: RUF012

    def export_program(  # type: ignore[override]
        self, model: Any, sample_inputs: MutableMapping[str, Any], config: Any
    ) -> tuple[MindSporeProgram, ExportMetadata]:
        """Trace, lower and write one graph. Raises `UnsupportedOps`, `LoweringError`, `CaptureError`."""
        nested = [
            n for n, v in sample_inputs.items() if not isinstance(v, (torch.Tensor, bool, int, float, str, type(None)))
        ]
        if nested:
            raise CaptureError(f"The MindSpore backend takes tensors as inputs; {', '.join(nested)} is nested.")
        inputs = dict(sample_inputs)
        with quiet():
            exported, metadata = super().export_program(model, sample_inputs, config)
            exported = exported.run_decompositions({})
        tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        fixed = {name: value for name, value in inputs.items() if not isinstance(value, torch.Tensor)}
        program = assemble(model, exported, tensors, fixed, dynamic=config.dynamic)
        options, _ = build_options(self.export_format, mode=config.mode, target=config.target)
        directory = leftovers.make()
        try:
            lowered = lower(program, directory, options)
            manifest = manifest_of(program, lowered, options)
        except BaseException:
            leftovers.remove(directory)
            raise
        return MindSporeProgram(Artifact(directory, manifest), temporary=True), metadata

    @classmethod
    def save_program(cls, program: MindSporeProgram, path: str | Path) -> None:  # type: ignore[override]
        """Write `path` (the module) and, beside it, its weights, constants and manifest."""
        module, weights, constants, described = _files(Path(path))
        artifact = program.artifact
        shutil.copyfile(artifact.entry, module)
        shutil.copyfile(artifact.directory / artifact.manifest.settings.get("weights", "model.safetensors"), weights)
        old = artifact.directory / artifact.manifest.settings.get("constants", "constants.safetensors")
        if old.is_file():
            shutil.copyfile(old, constants)
        else:  # `program_files` cannot know, and what it names has to exist
            save_file({}, constants)
        manifest = dataclasses.replace(
            artifact.manifest,
            entry=module.name,
            settings={**artifact.manifest.settings, "weights": weights.name, "constants": constants.name},
            files={f.name: {"sha256": _sha256(f), "bytes": f.stat().st_size} for f in (module, weights, constants)},
        )
        described.write_text(manifest_to_json(manifest), encoding="utf-8")

    @classmethod
    def load_program(cls, path: str | Path) -> MindSporeProgram:  # type: ignore[override]
        """Read what `save_program` wrote, checking every checksum. Raises `TamperedPort`, `PortError`."""
        described = _files(Path(path))[-1]
        manifest = manifest_from_json(described.read_text(encoding="utf-8"), described.name)
        if not isinstance(manifest, Manifest):
            raise PortError(f"{described} is of several components. Export the model again.")
        directory = described.parent
        for name, entry in manifest.files.items():
            file = directory / Path(name).name
            if not file.is_file() or _sha256(file) != entry["sha256"]:
                raise TamperedPort(
                    f"{file} is not what was exported; nothing of it was executed. Export the model again."
                )
        return MindSporeProgram(Artifact(directory, manifest))

    @classmethod
    def program_files(cls, filename: str) -> list[str]:
        """The files that make one program, for downloads from the hub."""
        return [file.name for file in _files(Path(filename))]


class MindSporeModelRunner(ModelRunner):
    """Runs a `MindSporeProgram`: torch tensors in, what the original returns out."""

    def __init__(self, program: MindSporeProgram, metadata: ExportMetadata, mode: str = "") -> None:
        super().__init__(metadata)
        self.program = program
        self.session = MindSpore().load(program.artifact, mode=mode)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @classmethod
    def from_program(
        cls, program: MindSporeProgram, metadata: ExportMetadata, device: Any = None, mode: str = ""
    ) -> MindSporeModelRunner:
        """mode: "graph" or "pynative", by default the config's."""
        if device is not None and torch.device(device).type != "cpu":
            raise ValueError(f"The MindSpore backend runs on cpu here, not on {device}.")
        return cls(program, metadata, mode)

    def __call__(self, share_inputs: bool = True, share_outputs: bool = False, **kwargs: Any) -> Any:
        feed = {s.name: np.ascontiguousarray(kwargs[s.name].detach().numpy()) for s in self.session.manifest.inputs}
        return self.unflatten([torch.from_numpy(value) for value in self.session.run(feed)])


def _files(path: Path) -> tuple[Path, Path, Path, Path]:
    stem = path.with_suffix("")
    return (
        path,
        stem.with_name(f"{stem.name}.safetensors"),
        stem.with_name(f"{stem.name}_constants.safetensors"),
        stem.with_name(f"{stem.name}.json"),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _register() -> None:
    from transformers.exporters.auto import EXPORT_BACKENDS

    if EXPORT_BACKENDS.get("mindspore") is None:
        register_backend(MindSporeExporter, MindSporeModelRunner)


_register()
