# SPDX-License-Identifier: Apache-2.0
"""The example that a port was made with, kept beside its weights: every verification compares on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from paritas import contents
from paritas.errors import PortError
from paritas.program import Artifact, Note, Source, TensorSpec
from paritas.run.tensors import tensors
from paritas.size_names import shown

LARGEST = 16 << 20  # bytes: a port is not to be larger for its example than for its weights


def file_of(source: Source) -> str:
    """Where the example lies in a port's directory, which a component may share with others."""
    return f"example.{source.component}.safetensors" if source.component else "example.safetensors"


def write(directory: Path, examples: Mapping[str, np.ndarray], source: Source) -> list[Note]:
    """Put the example into a port's directory; what cannot be kept is a note."""
    if not examples:
        return []
    size = sum(value.nbytes for value in examples.values())
    if size > LARGEST:
        why = f"it has {size >> 20} MiB, more than {LARGEST >> 20}"
    else:
        try:
            # Copies in C order: safetensors writes the memory of an array as it lies there.
            copies = {name: np.array(value, order="C") for name, value in examples.items()}
            save_file(copies, directory / file_of(source))
            return []
        except (SafetensorError, KeyError, TypeError) as error:
            why = str(error)
    text = f"the example is not kept with the port: {why}; once saved and loaded, it is not verified on it"
    return [Note("capture", text)]


def read(artifact: Artifact, specs: tuple[TensorSpec, ...]) -> dict[str, np.ndarray]:
    """The example of a port, an array per input; {} where it keeps none.

    Raises `PortError` for a damaged file, `TamperedPort` for one that has been changed since the port was loaded.
    """
    file = file_of(artifact.manifest.source)
    if not contents.has(artifact, file):
        return {}
    found = tensors(contents.take(artifact, file), str(artifact.directory / file))
    if set(found) != {spec.name for spec in specs}:
        return {}
    for spec in specs:
        value = found[spec.name]
        dtype = "float32" if spec.dtype == "bfloat16" else spec.dtype
        if value.ndim != len(spec.dims) or value.dtype.name != dtype:
            (want,) = shown([spec], specs)
            raise PortError(
                f"{artifact.directory / file}: {spec.name} is {value.dtype}{list(value.shape)}; {want} is expected. "
                "Make the port again."
            )
    return found
