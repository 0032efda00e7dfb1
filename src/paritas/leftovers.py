# SPDX-License-Identifier: Apache-2.0
"""What a process writes for a while, in such a way that the next one can remove it if this one is killed.

Whoever makes a directory or a file for a while keeps a lock on it as long as it lives. The system gives up the lock
of a process that is killed, so what nobody has a lock on has no owner any more. Numbers of processes would say
less: they are given anew, and containers that share a disk have the same ones.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is swept there
    fcntl = None  # type: ignore[assignment]

_PREFIX = "paritas-run-"

#: Beside NAME: what is being written, or was there before. See `beside`.
_BESIDE = re.compile(r"\.(?P<name>.+)\.(tmp|old)-\d+-[0-9a-f]{8}")

#: Directory -> the process that made it, and the descriptor whose lock says that it is in use.
_held: dict[Path, tuple[int, int | None]] = {}


def beside(target: Path, word: str) -> Path:
    """A new name beside `target`, for what is being written ("tmp") or was there before ("old")."""
    return target.with_name(f".{target.name}.{word}-{os.getpid()}-{secrets.token_hex(4)}")


def is_beside(name: str) -> bool:
    """Whether a file's name is one that `beside` gives."""
    return _BESIDE.fullmatch(name) is not None


def lock(path: Path) -> int | None:
    """Say that this process uses `path`: a descriptor to close when it no longer does; None where it cannot be said."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    return descriptor


def claim(target: Path, make: Callable[[Path], object]) -> tuple[Path, int | None]:
    """A new name beside `target` at which `make` has made something, and what `lock` says of it."""
    while True:
        staging = beside(target, "tmp")
        try:
            make(staging)
            descriptor = lock(staging)
        except BaseException:  # Ctrl-C included
            with contextlib.suppress(OSError):
                staging.rmdir() if staging.is_dir() else staging.unlink()
            raise
        # Between the two another writer may have taken it for abandoned.
        if staging.exists():
            return staging, descriptor
        unlock(descriptor)


def unlock(descriptor: int | None) -> None:
    if descriptor is not None:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def sweep_beside(target: Path, words: tuple[str, ...] = ("tmp", "old")) -> None:
    """Remove what killed writers of `target` left beside it. What somebody still writes stays."""
    for path in _entries(target.parent):
        found = _BESIDE.fullmatch(path.name)
        if found is not None and found["name"] == target.name and found[2] in words:
            _remove_if_abandoned(path)


def make(word: str = "port") -> Path:
    """A new directory of this process, in the temporary directory. What killed processes left there goes first."""
    top = Path(tempfile.gettempdir())
    for path in _entries(top):
        if path.name.startswith(_PREFIX):
            _remove_if_abandoned(path)
    while True:
        outer = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=top))
        descriptor = lock(outer)
        # Between the two another process may have taken it for abandoned.
        if outer.is_dir():
            break
        unlock(descriptor)
    made = outer / word
    made.mkdir()
    _held[made] = os.getpid(), descriptor
    return made


def remove(directory: Path) -> None:
    """Remove what `make` has made, as far as that is possible, also where Ctrl-C comes in between."""
    owner, descriptor = _held.get(directory, (None, None))
    if owner != os.getpid():  # a child of the process that made it, or done already
        return
    try:
        shutil.rmtree(directory.parent, ignore_errors=True)
    except BaseException:
        shutil.rmtree(directory.parent, ignore_errors=True)
        raise
    finally:
        _held.pop(directory, None)
        unlock(descriptor)


@contextlib.contextmanager
def temporary(word: str = "part") -> Iterator[Path]:
    """As `make`, for as long as it is open."""
    directory = make(word)
    try:
        yield directory
    finally:
        remove(directory)


def for_this_process(word: str) -> Path:
    """As `make`, removed when this process ends."""
    directory = make(word)
    atexit.register(remove, directory)
    return directory


def _entries(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            return [Path(entry.path) for entry in entries]
    except OSError:
        return []


def _remove_if_abandoned(path: Path) -> None:
    """Remove a directory or a file of this user that no living process has a lock on. A link is left alone."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        before = os.lstat(path)
        ours = before.st_uid == os.getuid() and (stat.S_ISDIR(before.st_mode) or stat.S_ISREG(before.st_mode))
        if not ours:
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            now = os.lstat(path)
            # The name may have come to stand for something else before the lock was had.
            if (now.st_dev, now.st_ino) == (os.fstat(descriptor).st_dev, os.fstat(descriptor).st_ino):
                if stat.S_ISDIR(now.st_mode):
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
        finally:
            os.close(descriptor)
