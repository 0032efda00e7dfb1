# SPDX-License-Identifier: Apache-2.0
"""A port on disk: a directory with `port.json`, written whole or not at all, and checked before it is used.

Needs neither torch nor an engine. Nothing here executes or unpickles anything: `read` decides whether a
directory holds exactly what `write` left there, and only then may an engine open its files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import glob
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from paritas import files as plain
from paritas import leftovers
from paritas.contents import is_inside, refusals, sealed, tampered
from paritas.errors import PortError, TamperedPort
from paritas.program import Artifact, ComponentArtifacts, ComponentsManifest, Manifest, entries
from paritas.store.manifest import manifest_from_json, manifest_to_json

MANIFEST = "port.json"

#: Reports that may be added to a port after it was written.
ATTACHMENTS = ("parity.json", "PARITY.md", "PARITY.html")

#: Where a port keeps inputs to verify with. Plain arrays that are opened only if they are listed, so that an unlisted
#: one is no danger, and a crash between writing and listing one leaves a port that can be read.
_INPUTS = re.compile(r"([a-z]\w{0,40}/)?regression/[\w-]+\.safetensors")

#: A file with one of these endings can run code or replace weights, so a port may hold only listed ones.
_ACTIVE = frozenset(
    (
        *(".py", ".pyc", ".pyi", ".pyx", ".so", ".pyd", ".dll", ".dylib", ".sh", ".bat", ".exe", ".js"),
        *(".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".bin", ".npy", ".npz", ".h5"),
        *(".onnx", ".xml", ".mindir", ".air", ".safetensors", ".gguf"),
    )
)

#: What engines open of a port. Read once: what is checked is then what they get.
_FOR_ENGINES = (".py", ".xml", ".bin", ".safetensors")

#: Of a `port.json`; the largest that were seen have some megabytes.
_LARGEST_MANIFEST = 1 << 27

T = TypeVar("T")

#: A port of one graph, or of several components.
A = TypeVar("A", Artifact, ComponentArtifacts)


# --- write -------------------------------------------------------------------------------------


def write(artifact: A, directory: str | os.PathLike[str], *, force: bool = False) -> A:
    """Copy a finished artifact's files to `directory` and say in its `port.json` what they are.

    Either the whole port is there afterwards or `directory` is as it was: the files are written beside it
    and moved into place last. An existing port is replaced, unless that would lose files that were added to
    it or edited (`force=True` replaces it all the same). Anything else that exists is never replaced.
    Raises `PortError`.
    """
    target = Path(directory).expanduser().resolve()
    with os_errors(f"The port cannot be written to {target}", target.parent):
        _undisturbed(target, lambda: _check_replaceable(target, force))
        leftovers.sweep_beside(target, ("tmp",))
        staging, made, owned = None, list[Path](), None
        try:
            _make_parents(target.parent, made)
            staging, owned = leftovers.claim(target, Path.mkdir)
            manifest = dataclasses.replace(artifact.manifest, files=_copy_files(artifact, staging))
            _write_text(staging / MANIFEST, manifest_to_json(manifest))
            _sync_directory(staging)
            move_into_place(staging, target)
        except BaseException:  # Ctrl-C included; what it finds before the next line, the next writer removes
            if staging is not None:
                _remove(staging)
            for parent in reversed(made):
                with contextlib.suppress(OSError):
                    parent.rmdir()
            raise
        finally:
            leftovers.unlock(owned)
        leftovers.sweep_beside(target)
    return type(artifact)(target, manifest)


def check_target(directory: str | os.PathLike[str], *, force: bool = False) -> None:
    """Refuse now what `write` to `directory` would refuse after minutes of work. Raises `PortError`; writes nothing."""
    target = Path(directory).expanduser().resolve()
    with os_errors(f"The port cannot be written to {target}", target.parent):
        _undisturbed(target, lambda: _check_replaceable(target, force))
        above = next(path for path in target.parents if path.exists())
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(above))
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(above))


def attach(directory: str | os.PathLike[str], name: str, text: str) -> Artifact | ComponentArtifacts:
    """Write a report (`parity.json`, `PARITY.md` or `PARITY.html`) into a port and its checksum into `port.json`.

    A reader, or a crash, in between never sees a file that does not match its checksum. Raises `PortError`.
    """
    if name not in ATTACHMENTS:
        known = f"{', '.join(ATTACHMENTS[:-1])} and {ATTACHMENTS[-1]}"
        raise PortError(f"{name!r} cannot be added to a port; only {known} can.")
    root = Path(directory).expanduser().resolve()
    with os_errors(f"{name} cannot be written to {root}", root), _locked(root):
        manifest = _parse(root)
        others = {key: value for key, value in manifest.files.items() if key != name}
        # An unlisted report is allowed, one with the wrong checksum is not: so unlist, replace, list.
        if name in manifest.files:
            replace_text(root / MANIFEST, manifest_to_json(dataclasses.replace(manifest, files=others)))
        replace_text(root / name, text)
        data = text.encode()
        others[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        manifest = dataclasses.replace(manifest, files=dict(sorted(others.items())))
        replace_text(root / MANIFEST, manifest_to_json(manifest))
    return _artifact(root, manifest)


def keep(artifact: Artifact, name: str, data: bytes, *, drop: Collection[str] = ()) -> Artifact:
    """Add inputs to verify with (`regression/NAME.safetensors`) to a port, with their checksum, and drop others.

    A port that was not saved yet has no `port.json`: there the files wait in its directory for `write`. A reader, or
    a crash, in between finds a port that can be read. Raises `PortError`.
    """
    wrong = [file for file in (name, *drop) if not _INPUTS.fullmatch(file)]
    if wrong:
        raise PortError(f"{wrong[0]!r} is no name for inputs of a port: regression/NAME.safetensors is.")
    root, front = artifact.root, f"{artifact.folder}/" if artifact.folder else ""
    added = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}}

    def listed(files: Mapping[str, Any], front: str) -> dict[str, Any]:
        left = {key: value for key, value in files.items() if key not in {front + other for other in drop}}
        return dict(sorted({**left, **{front + key: value for key, value in added.items()}}.items()))

    with os_errors(f"{name} cannot be written to {root}", root), _locked(root):
        place = artifact.directory
        (place / name).parent.mkdir(exist_ok=True)
        replace(place / name, data)
        if (root / MANIFEST).exists():
            manifest = _parse(root)
            manifest = dataclasses.replace(manifest, files=listed(manifest.files, front))
            replace_text(root / MANIFEST, manifest_to_json(manifest))
        for other in drop:
            (place / other).unlink(missing_ok=True)
    known = dataclasses.replace(artifact.manifest, files=listed(artifact.manifest.files, ""))
    return dataclasses.replace(artifact, manifest=known)


def inputs(artifact: Artifact) -> list[Path]:
    """The files of inputs to verify with that this port lists, in the order of their names."""
    of = artifact.manifest.source.component
    begin = f"regression/{of}-" if of else "regression/"
    kept = filter(_INPUTS.fullmatch, artifact.manifest.files)
    return [artifact.directory / name for name in kept if name.startswith(begin)]


def _check_replaceable(target: Path, force: bool) -> None:
    """Refuse a target that is a file, a directory of something else, or a port with someone's work in it."""
    if not target.exists():
        return
    if not target.is_dir():
        raise PortError(f"{target} is a file. Give the path of a directory that is new, empty or a port.")
    if os.path.ismount(target):
        raise PortError(f"{target} is a mount point, which cannot be replaced. Give a directory below it.")
    if not any(target.iterdir()):
        return
    try:
        manifest = _parse(target)
    except PortError as error:
        raise PortError(
            f"{target} is not empty and not a port of this Paritas, so it is not replaced.\n"
            f"It holds: {_listing(target)}.\nGive another directory, or empty this one. ({error})"
        ) from None
    if force:
        return
    added = [name for name in _walk(target) if name not in manifest.files and not _harmless(name)]
    code = {name: entry for name, entry in manifest.files.items() if name.endswith(".py")}
    edited = [name for name, entry in code.items() if _differs(target, name, entry)]
    reasons = [f"{name} was added to it" for name in added] + [f"{name} was edited" for name in edited]
    if reasons:
        raise PortError(
            f"{target} is a port, but replacing it would lose work:\n"
            + _indented(reasons)
            + "Move these away, give another directory, or replace the port all the same with force=True."
        )


def _copy_files(artifact: Artifact | ComponentArtifacts, staging: Path) -> dict[str, dict[str, Any]]:
    """Copy its files, and say what they are."""
    source = artifact.directory
    names = [name for name in _walk(source) if name != MANIFEST and not _bytecode(name)]
    for entry in entries(artifact.manifest):
        if entry not in names:
            raise PortError(f"The artifact in {source} lacks its main file {entry!r}.")
    total = sum((source / name).stat().st_size for name in names)
    free = shutil.disk_usage(staging).free
    if total > free:
        raise OSError(errno.ENOSPC, f"{_megabytes(total)} are needed, {_megabytes(free)} are free")
    files: dict[str, dict[str, Any]] = {}
    for name in names:
        path = staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if theirs := artifact.theirs.get(name) if isinstance(artifact, Artifact) else None:
            files[name] = _shared(theirs, source / name, path)
            continue
        if artifact.own and plain.linked(source / name, path):
            digest, size = plain.sha256(path), path.stat().st_size
        else:
            digest, size = plain.copied(source / name, path)
        if size >= plain.FINAL:  # it stays in its place when the port is loaded: see `files.Mapped`
            path.chmod(path.stat().st_mode & ~0o222)
        files[name] = {"sha256": digest, "bytes": size}
        _check_unchanged(artifact, name, digest)
    return dict(sorted(files.items()))


def _shared(theirs: plain.Theirs, source: Path, path: Path) -> dict[str, Any]:
    """What `path` is: the checkpoint's own file, whose permissions are left as they are; a copy on another disk."""
    if not theirs.unchanged:
        raise PortError(f"{theirs.path} has been written to since it was ported, so the port is not. Port it again.")
    if theirs.shared(path):
        return {"sha256": plain.sha256(path), "bytes": path.stat().st_size}
    digest, size = plain.copied(source, path)
    return {"sha256": digest, "bytes": size}


def _check_unchanged(artifact: Artifact | ComponentArtifacts, name: str, digest: str) -> None:
    """A port that was loaded is written on as it was loaded: a new checksum must not make an edit one's own."""
    listed = artifact.manifest.files
    if not sealed(artifact) or name in ATTACHMENTS or _INPUTS.fullmatch(name):
        return
    active = PurePosixPath(name).suffix.lower() in _ACTIVE
    if listed[name]["sha256"] != digest if name in listed else active:
        raise TamperedPort(
            f"{artifact.directory / name} has been changed since the port was loaded, so it is not written "
            "elsewhere. Load the port again."
        )


def move_into_place(staging: Path, target: Path) -> None:
    """Rename `staging` to `target`, keeping what was there until the new one is in its place."""
    old = leftovers.beside(target, "old")
    owned = leftovers.lock(target)
    try:
        for _ in range(100):
            with contextlib.suppress(FileNotFoundError):
                os.rename(target, old)
            try:
                os.rename(staging, target)
                break
            except OSError as error:
                # Another writer was faster between the two renames: its port is the old one now.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                _remove(old)
        else:
            raise PortError(f"{target} is being written by other processes all the time. Try again.")
        _sync_directory(target.parent)
    except BaseException:
        # Decided by what is on the disk, because Ctrl-C can come between a rename and the next line.
        if staging.exists() and old.exists() and not target.exists():
            os.rename(old, target)
        raise
    finally:
        if target.exists() or not staging.exists():
            _remove(old)
        leftovers.unlock(owned)


# --- read --------------------------------------------------------------------------------------


def read(
    directory: str | os.PathLike[str],
    *,
    verify_checksums: bool = True,
    allow_modified: bool = False,
    hold: bool = False,
) -> Artifact:
    """The port in `directory`, after checking that it is what Paritas wrote. Executes and unpickles nothing.

    Raises `PortError` for a directory that is no port or is damaged, `TamperedPort` where a file is missing,
    has other contents than its checksum says, leads out of the directory, or is executable and not listed.
    `allow_modified=True` accepts edited and added files (never a path that leads outside).
    `verify_checksums=False` skips reading the contents; names and sizes are checked all the same. `hold=True` keeps
    what engines need in memory as it was checked, for `paritas.contents.take`.
    """
    found = read_any(directory, verify_checksums=verify_checksums, allow_modified=allow_modified, hold=hold)
    if isinstance(found, Artifact):
        return found
    raise PortError(
        f"{directory} holds several components ({', '.join(found.manifest.components)}), and a port of one graph is "
        f"wanted here. Load them:   paritas.load({str(directory)!r})"
    )


def read_any(
    directory: str | os.PathLike[str],
    *,
    verify_checksums: bool = True,
    allow_modified: bool = False,
    hold: bool = False,
) -> Artifact | ComponentArtifacts:
    """As `read`, for a directory that may hold several components as well."""
    try:
        root = Path(directory).expanduser()
        root.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, no such user
        raise PortError(f"{str(directory)[:200]!r} is no name of a directory: {error}.") from None

    def checked() -> Artifact | ComponentArtifacts:
        manifest = _parse(root)
        _check_paths(root, manifest)
        artifact = _artifact(root.resolve(), manifest, allow_modified)
        if not allow_modified:
            _check_contents(root, artifact, verify_checksums, hold)
        return artifact

    try:
        return _undisturbed(root, checked)
    except OSError as error:
        raise PortError(f"{root} cannot be read: {error.strerror}: {error.filename}.") from error


def _artifact(
    root: Path, manifest: Manifest | ComponentsManifest, modified: bool = False
) -> Artifact | ComponentArtifacts:
    if isinstance(manifest, Manifest):
        return Artifact(root, manifest, modified)
    return ComponentArtifacts(root, manifest, modified)


def _undisturbed(root: Path, look: Callable[[], T]) -> T:
    """What `look` finds in `root`, looking again where another process replaced the port meanwhile."""
    for _ in range(20):
        before = _stamp(root)
        try:
            return look()
        except (PortError, FileNotFoundError):
            if before is not None and _stamp(root) == before:
                raise
            if before is None and not _kept(root) and _stamp(root) is None:
                raise
            time.sleep(0.005)  # a writer is between its two renames
    return look()


def _parse(root: Path) -> Manifest | ComponentsManifest:
    """The manifest in `root`, or a `PortError` that says what is there instead."""
    if not root.is_dir():
        raise PortError(_no_directory(root))
    path = root / MANIFEST
    with refusals(path):
        try:
            text = plain.text(path, _LARGEST_MANIFEST)
        except FileNotFoundError:
            raise PortError(_no_manifest(root)) from None
    return manifest_from_json(text, str(path))


def _check_paths(root: Path, manifest: Manifest | ComponentsManifest) -> None:
    """No listed file and nothing else in the directory may lead outside it. No override."""
    wrong = [repr(name) for name in (*manifest.files, *entries(manifest)) if not is_inside(name)]
    for name, kind in plain.walk(root):
        if kind == "link":
            wrong.append(f"{name!r} is a link to {os.readlink(root / name)}")
        elif kind == "other":  # a pipe would make the reader wait for ever
            wrong.append(f"{name!r} is no regular file")
    if wrong:
        raise TamperedPort(
            f"{root} names or holds files outside the port, or links, which Paritas never writes:\n"
            + _indented(sorted(wrong))
            + "Nothing of it was opened. Get the port again from where it was made."
        )


def _check_contents(root: Path, artifact: Artifact | ComponentArtifacts, verify_checksums: bool, hold: bool) -> None:
    manifest, wrong = artifact.manifest, []
    unlisted_entries = [name for name in entries(manifest) if name not in manifest.files]
    wrong += [f"{name}: the main file, but not listed with a checksum" for name in unlisted_entries]
    for name in _walk(root):
        unlisted = name not in manifest.files and not _bytecode(name) and not _INPUTS.fullmatch(name)
        if unlisted and PurePosixPath(name).suffix.lower() in _ACTIVE:
            wrong.append(f"{name}: not listed in {MANIFEST}")
    to_hash = []
    for name, entry in manifest.files.items():
        path = root / name
        if not path.is_file():
            wrong.append(f"{name}: missing")
        elif (size := path.stat().st_size) != entry["bytes"]:
            wrong.append(f"{name}: {entry['bytes']} bytes expected, {size} found")
        elif verify_checksums:
            to_hash.append(name)

    def digest(name: str) -> str:
        if hold and name.endswith(".bin") and plain.is_final(root / name):  # who takes it settles it
            artifact.held[name] = plain.Mapped(root / name, manifest.files[name]["bytes"])
            return str(manifest.files[name]["sha256"])
        if hold and name.endswith(_FOR_ENGINES) and not _INPUTS.fullmatch(name):
            artifact.held[name], found = plain.read(root / name, manifest.files[name]["bytes"])
            return found
        return plain.sha256(root / name)

    # Hashing releases the interpreter lock, so two large files take the time of one.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for name, got in zip(to_hash, pool.map(digest, to_hash), strict=True):
            want = manifest.files[name]["sha256"]
            if got != want:
                wrong.append(f"{name}: sha256 {want[:16]}... expected, {got[:16]}... found")
    if wrong:
        raise tampered(root, wrong)


def _bytecode(name: str) -> bool:
    """Left by whoever imported the generated module; Paritas compiles its source and never reads this."""
    return "__pycache__" in PurePosixPath(name).parts[:-1] and name.endswith(".pyc")


def _harmless(name: str) -> bool:
    return name in (MANIFEST, *ATTACHMENTS) or _bytecode(name)


def _differs(root: Path, name: str, entry: Mapping[str, Any]) -> bool:
    path = root / name
    return path.is_file() and (path.stat().st_size != entry["bytes"] or plain.sha256(path) != entry["sha256"])


def _stamp(root: Path) -> tuple[int, int] | None:
    try:
        info = (root / MANIFEST).stat()
    except OSError:
        return None
    return info.st_ino, info.st_mtime_ns


# --- what is there instead ---------------------------------------------------------------------


def _no_directory(root: Path) -> str:
    if root.is_file():
        if root.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".xz"):
            return f"{root} is an archive. Unpack it, and give the directory."
        return f"{root} is a file. A port is a directory: give the one that holds {MANIFEST}."
    if kept := _kept(root):
        return f"There is no directory {root}. A writer was killed there; its port is in {kept[0]}."
    return f"There is no directory {root}."


def _kept(root: Path) -> list[Path]:
    """What writers of `root` moved aside."""
    return sorted(root.parent.glob(f".{glob.escape(root.name)}.old-*")) if root.parent.is_dir() else []


def _no_manifest(root: Path) -> str:
    names = {path.name for path in root.iterdir()}
    if not names:
        return f"{root} is empty, so it is not a port."
    if "model_index.json" in names and "ports.json" not in names:
        kind = "looks like a diffusers pipeline"
    elif "config.json" in names or "modules.json" in names:
        kind = "looks like a transformers checkpoint"
    elif below := [path.parent.name for path in sorted(root.glob(f"*/{MANIFEST}"))]:
        return f"{root} is not a port, but holds some. Give one of them: {', '.join(below)}."
    else:
        return f"{root} is not a port: it has no {MANIFEST}. It holds: {_listing(root)}."
    return (
        f"{root} is not a port: it has no {MANIFEST}. It {kind}. Make a port of it:\n"
        f"  paritas port {root} --engine openvino --out {root.name}-openvino"
    )


def _indented(lines: list[str]) -> str:
    return "".join(f"  {line}\n" for line in lines)


def _listing(root: Path, most: int = 8) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# --- the file system ---------------------------------------------------------------------------


def _walk(root: Path) -> list[str]:
    """Every file below `root`, as a sorted list of "folder/name", but what is being written this moment."""
    return sorted(
        name for name, kind in plain.walk(root) if kind == "file" and not leftovers.is_beside(PurePosixPath(name).name)
    )


def _make_parents(parent: Path, made: list[Path]) -> None:
    """Make `parent` and what is missing above it, and append each of these to `made`."""
    missing = [path for path in (parent, *parent.parents) if not path.exists()]
    for path in reversed(missing):
        made.append(path)  # before it is there: Ctrl-C can come right after
        path.mkdir(exist_ok=True)


def _write_text(path: Path, text: str) -> None:
    _write(path, text.encode())


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_text(path: Path, text: str) -> None:
    """Write beside and move into place: a reader sees the old text or the new."""
    replace(path, text.encode())


def replace(path: Path, data: bytes) -> None:
    """As `replace_text`, for a file of any kind."""
    leftovers.sweep_beside(path, ("tmp",))
    staging, owned = leftovers.claim(path, Path.touch)
    try:
        _write(staging, data)
        os.replace(staging, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            staging.unlink()
        raise
    finally:
        leftovers.unlock(owned)


def _remove(path: Path) -> None:
    """Remove what this process wrote, to the end even when Ctrl-C comes in between."""
    try:
        shutil.rmtree(path, ignore_errors=True)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _sync_directory(path: Path) -> None:
    # Some file systems refuse this; the rename is atomic all the same, it only may not survive a power cut.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Let one process at a time change this port's manifest. Leaves no lock file."""
    try:
        import fcntl
    except ImportError:  # Windows: two reports attached at the same moment may lose one
        yield
        return
    if not directory.is_dir():
        raise PortError(_no_directory(directory))
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def os_errors(what: str, where: Path) -> Iterator[None]:
    """Say an `OSError` as a `PortError` that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = f"no space left ({reason}). Free some, or give a directory on another disk"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = f"no permission to write in {where} ({reason}). Change its owner, or write elsewhere"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            advice = f"a part of that path is a file, not a directory: {error.filename}"
        else:
            advice = f"{reason}" + (f": {error.filename}" if error.filename else "")
        raise PortError(f"{what}: {advice}. Nothing was left half-made.") from error


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
