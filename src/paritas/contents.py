# SPDX-License-Identifier: Apache-2.0
"""The contents of a port's files for an engine: what was checked, never what may stand there since."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from paritas import files as plain
from paritas.errors import PortError, TamperedPort
from paritas.program import Artifact, ComponentArtifacts, entries


def is_inside(name: str) -> bool:
    """Whether a name can only be that of a file below the directory."""
    path = PurePosixPath(name)
    plain = not set(name) & set("\\:\0") and not path.is_absolute()
    return plain and bool(path.parts) and ".." not in path.parts


def sealed(artifact: Artifact | ComponentArtifacts) -> bool:
    """Whether what a port lists is all that it is: it was saved, and nobody has said that edits are all right.

    A port that was not saved yet may list inputs to verify with, but not its main file.
    """
    return all(name in artifact.manifest.files for name in entries(artifact.manifest)) and not artifact.modified


def take(artifact: Artifact, name: str) -> plain.Buffer:
    """The bytes of a port's file as they were checked, for the one who asks first; nobody else has them.

    Who asks again, or asks for a port that was not saved, gets what is on the disk; of a saved port only if it is
    still what its checksum says. Raises `PortError` for a file that is not there, and `TamperedPort` for a name that
    leads outside, for a file that the port does not list, and for one that has been changed since it was loaded.
    """
    held = artifact.held.pop(name, None)
    if isinstance(held, plain.Mapped):
        settle(artifact, name, held)
        return held.view
    if held is not None:
        return plain.Buffer(held)
    manifest, path = artifact.manifest, artifact.directory / name
    listed = manifest.files.get(name)
    if not is_inside(name):
        raise TamperedPort(f"{artifact.directory} names {name!r}, which is no file of the port.")
    if listed is None and sealed(artifact):
        raise TamperedPort(f"{artifact.directory} names {name!r}, which is not among the files that it lists.")
    with refusals(path):
        data, digest = plain.read(path)
    if listed is not None and sealed(artifact) and digest != listed["sha256"]:
        raise TamperedPort(f"{path} has been changed since the port was loaded. Load the port again.")
    return data


def take_mapped(artifact: Artifact, name: str) -> plain.Mapped | None:
    """A port's file that nobody may write to, for the one who asks first: it stays in its place on the disk.

    It is being checked meanwhile: `settle` has to say that it is right before anything is computed with it. What this
    process has just written itself needs no check.
    """
    held, path = artifact.held.get(name), artifact.directory / name
    if artifact.own and is_inside(name) and path.is_file() and (size := path.stat().st_size) >= plain.FINAL:
        with refusals(path):
            return plain.Mapped(path, size, check=False)
    if not isinstance(held, plain.Mapped):
        return None
    del artifact.held[name]
    return held


def settle(artifact: Artifact, name: str, mapped: plain.Mapped) -> None:
    """Raise `TamperedPort` unless the file is what its checksum says."""
    if artifact.own:
        return
    want, got = str(artifact.manifest.files[name]["sha256"]), mapped.sha256
    if got != want:
        raise tampered(artifact.directory, [f"{name}: sha256 {want[:16]}... expected, {got[:16]}... found"])


def tampered(root: Path, wrong: Sequence[str]) -> TamperedPort:
    """The error for a port whose files are not what it lists."""
    return TamperedPort(
        f"{root} is not as Paritas wrote it; nothing of it was executed:\n"
        + "".join(f"  {line}\n" for line in sorted(wrong))
        + "If you changed these files yourself, load the port with allow_modified=True "
        + "(--allow-modified); otherwise get it again from where it was made."
    )


@contextlib.contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Say why a file of a port cannot be read: `TamperedPort` for what is no regular file, else `PortError`."""
    try:
        yield
    except FileNotFoundError:
        raise PortError(f"{path} is missing. Get the port again from where it was made.") from None
    except plain.NotPlain as error:
        raise TamperedPort(f"{path}: {error.strerror}, which Paritas never writes.") from None
    except UnicodeDecodeError:
        raise PortError(f"{path} is not text, so it is damaged. Make the port again.") from None
    except OSError as error:
        raise PortError(f"{path} cannot be read: {error.strerror}.") from None


def has(artifact: Artifact, name: str) -> bool:
    """Whether `take` would find such a file; of a saved port, whether it lists one."""
    if sealed(artifact):
        return name in artifact.manifest.files
    return is_inside(name) and (artifact.directory / name).is_file()
