# SPDX-License-Identifier: Apache-2.0
"""What ports are verified with, for every command that does: an original from elsewhere, arrays of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paritas.errors import InputError
from paritas.program import ComponentsManifest, Manifest


def original_of(port: Any, source: str) -> Any:
    """The module in another place than `port.json` says, in the dtype in which the port was captured."""
    from paritas.capture.source import resolve
    from paritas.cli.models import named
    from paritas.components import Components
    from paritas.run.engine import about

    manifest = next(iter(port.values())).manifest if isinstance(port, Components) else port.manifest
    dtype = about(manifest.engine).capture_dtype(manifest.dtype)
    model_class = manifest.source.model_class
    known = model_class if model_class.startswith("transformers.") else None
    return resolve(named(source), model_class=known, dtype=dtype)[0]


def engines(manifest: Manifest | ComponentsManifest) -> set[str]:
    """On which a port runs."""
    return {manifest.engine} if isinstance(manifest, Manifest) else {m.engine for m in manifest.components.values()}


def arrays(file: Path) -> dict[str, Any]:
    """The arrays of an .npz file by name. Nothing pickled is read."""
    import zipfile

    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise InputError(f"There is no file {file}.") from None
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{file} is no .npz file of plain arrays: {error}. Make one: numpy.savez(...)") from None


def text_of(file: Path) -> str:
    """What a file of text holds. Raises `InputError`."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is no text in UTF-8: {error}.") from None
