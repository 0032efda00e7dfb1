# SPDX-License-Identifier: Apache-2.0
"""Files of a directory that may be anyone's: read without following a link, waiting for a pipe, or looking again.

What is checked has to be what is used, so a file is read once into memory and hashed there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import mmap
import os
import stat
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

Buffer = memoryview

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_BLOCK = 1 << 23

#: More folders in folders, or more entries, than any port has: what walks it would take for ever.
DEEPEST, MOST_ENTRIES = 16, 100_000


class NotPlain(OSError):
    """What stands there is a link, a directory, a pipe, a socket or a device."""


def opened(path: Path, *, links: bool = False) -> int:
    """A descriptor of a regular file, and no link unless `links`. Raises `OSError`, or `NotPlain`; never waits."""
    try:
        descriptor = os.open(path, _FLAGS & ~_NOFOLLOW if links else _FLAGS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):  # O_NOFOLLOW's answer
            raise NotPlain(error.errno, "it is a link", str(path)) from None
        if error.errno == errno.ENXIO:  # a socket
            raise NotPlain(error.errno, "it is no regular file", str(path)) from None
        raise
    except ValueError as error:  # NUL in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotPlain(errno.EINVAL, "it is no regular file", str(path))
    return descriptor


def read(path: Path, most: int | None = None, *, links: bool = False) -> tuple[Buffer, str]:
    """The contents of a regular file, in memory of their own that may be written to, and their sha256.

    most: its largest size in bytes; a larger one is an `OSError` before anything is read.
    """
    descriptor = opened(path, links=links)
    try:
        size = _checked_size(descriptor, path)
        if most is not None and size > most:
            raise OSError(errno.EFBIG, f"it has {size} bytes, and at most {most} are expected", str(path))
        digest = hashlib.sha256()
        view = memoryview(mmap.mmap(-1, size)) if size else memoryview(bytearray())
        at = 0
        with open(descriptor, "rb", buffering=0, closefd=False) as file, _in_order(size) as then:
            while at < size:
                count = file.readinto(view[at : at + _BLOCK])
                if not count:
                    raise OSError(errno.EIO, "it became shorter while it was read", str(path))
                then(digest.update, view[at : at + count])
                at += count
        return view, digest.hexdigest()
    except (MemoryError, OverflowError, ValueError):
        raise OSError(errno.ENOMEM, f"its {size} bytes do not fit into memory", str(path)) from None
    finally:
        os.close(descriptor)


class Mapped:
    """A large file that nobody may write to, in memory only as far as it is being looked at.

    `view` is a mapping of its own, which writes nothing to the file. Nothing of it may be used before `sha256` has said
    that it is the right one. Raises `OSError` as `read` does.
    """

    def __init__(self, path: Path, most: int, *, check: bool = True) -> None:
        descriptor = opened(path)
        weakref.finalize(self, os.close, descriptor)
        size = _checked_size(descriptor, path)
        if size > most:
            raise OSError(errno.EFBIG, f"it has {size} bytes, and at most {most} are expected", str(path))
        self._descriptor, self._stamp = descriptor, self._now(descriptor)
        self._mapping = mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)
        self.view = memoryview(self._mapping)
        self._hashed: Future[str] | None = None
        if not check:
            return
        with_it = ThreadPoolExecutor(1)  # an engine reads the weights in as much time as it takes to hash them
        self._hashed = with_it.submit(_sha256, descriptor)
        with_it.shutdown(wait=False)

    @property
    def sha256(self) -> str:
        """Of the file, once it is read."""
        return self._hashed.result() if self._hashed else _sha256(self._descriptor)

    @staticmethod
    def _now(descriptor: int) -> tuple[int, int]:
        found = os.fstat(descriptor)
        return found.st_size, found.st_mtime_ns

    @property
    def changed(self) -> bool:
        """Whether somebody has written to the file since, which takes a change of its permissions first."""
        return self._now(self._descriptor) != self._stamp

    def let_go(self) -> None:
        """Free the memory of what was looked at: who looks again gets it from the file again."""
        self._mapping.madvise(mmap.MADV_DONTNEED)


def _sha256(descriptor: int) -> str:
    digest, block, at = hashlib.sha256(), bytearray(_BLOCK), 0
    while count := os.preadv(descriptor, [block], at):
        digest.update(memoryview(block)[:count])
        at += count
    return digest.hexdigest()


def is_final(path: Path) -> bool:
    """Whether a file is large, and nobody may write to it: it stays as it is for as long as it is there."""
    found = os.lstat(path)
    writable = found.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    return found.st_size >= FINAL and not writable and hasattr(mmap, "MADV_DONTNEED")


#: Bytes from which on the files of a port are written once: none of its owners may write to them by accident.
FINAL = 1 << 26


@contextlib.contextmanager
def _in_order(size: int) -> Iterator[Callable[..., Any]]:
    """Calls what it is handed, one after the other: for a large file beside whoever hands it on.

    A block is hashed while the next one is read, and both take their time without the interpreter's lock.
    """
    if size < _LARGE:
        yield lambda function, *arguments: function(*arguments)
        return
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit


def linked(source: Path, path: Path) -> bool:
    """Whether `path` is now a name of the large file `source`, which only this process has written and may write to."""
    if source.stat().st_size < FINAL:
        return False
    try:
        os.link(source, path, follow_symlinks=False)
    except OSError:  # another disk, or one without such names
        return False
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return True


@dataclasses.dataclass(frozen=True)
class Theirs:
    """A file of somebody else, which a port may have as it is. size, modified: they say whether it is unchanged."""

    path: Path
    size: int
    modified: int

    @classmethod
    def at(cls, path: Path) -> Theirs:
        """The file at the end of `path`, which may be a link."""
        real = Path(os.path.realpath(path))
        found = os.stat(real)
        return cls(real, found.st_size, found.st_mtime_ns)

    @property
    def unchanged(self) -> bool:
        try:
            return self == Theirs.at(self.path)
        except OSError:
            return False

    def shared(self, path: Path) -> bool:
        """Whether `path` is now a name of that file, whose permissions stay as they are."""
        try:
            os.link(self.path, path, follow_symlinks=False)
        except OSError:  # another disk, one without such names, or a file of another user
            return False
        return True


def copied(source: Path, path: Path) -> tuple[str, int]:
    """The checksum and the size of what was copied."""
    digest, size = hashlib.sha256(), 0
    with open(opened(source), "rb") as reader, open(path, "wb") as writer:
        while block := reader.read(_BLOCK):
            digest.update(block)
            size += len(block)
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest(), size


#: Bytes from which on a file is looked at for holes, and of how many one is written at least.
_LARGE, _SPARSEST = 1 << 28, 64


def _checked_size(descriptor: int, path: Path) -> int:
    """A file's size. Raises `OSError` for a hole: terabytes of zeros that nobody has written, to be read for hours."""
    found = os.fstat(descriptor)
    blocks = getattr(found, "st_blocks", None)
    if blocks is not None and found.st_size > _LARGE and blocks * 512 < found.st_size // _SPARSEST:
        raise OSError(errno.EFBIG, f"of its {found.st_size} bytes almost none were written", str(path))
    return found.st_size


def sha256(path: Path) -> str:
    """Of a regular file."""
    descriptor = opened(path)
    try:
        _checked_size(descriptor, path)
    except OSError:
        os.close(descriptor)
        raise
    with open(descriptor, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text(path: Path, most: int = 1 << 28, *, links: bool = False) -> str:
    """A regular file as UTF-8, without translating line ends. Raises `OSError` and `UnicodeDecodeError`."""
    return bytes(read(path, most, links=links)[0]).decode()


def json_of(path: Path) -> Any:
    """A JSON file of a checkpoint, where links are usual. Raises `OSError`, and `ValueError` for what is no JSON."""
    return parsed(text(path, links=True))


def parsed(written: str) -> Any:
    """What JSON says. Raises `ValueError`, also where it is nested too deeply to be read."""
    try:
        return json.loads(written)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def walk(root: Path) -> Iterator[tuple[str, str]]:
    """("folder/name", what it is: "file", "link" or "other") of everything below `root` that is no folder.

    Raises `OSError` where folders lie too deep or entries are too many.
    """
    count = 0
    waiting = [("", 0)]
    while waiting:
        folder, depth = waiting.pop()
        with os.scandir(root / folder if folder else root) as entries:
            for entry in entries:
                count += 1
                if count > MOST_ENTRIES:
                    raise OSError(errno.E2BIG, f"it holds more than {MOST_ENTRIES} files", str(root))
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_symlink():
                    yield name, "link"
                elif entry.is_dir(follow_symlinks=False):
                    if depth >= DEEPEST:
                        raise OSError(errno.ELOOP, f"its folders lie more than {DEEPEST} deep", str(root))
                    waiting.append((name, depth + 1))
                else:
                    yield name, "file" if entry.is_file(follow_symlinks=False) else "other"


def foreign(root: Path) -> str:
    """The first file below `root` that is a link, or that another user owns or may write to; "" for none.

    Where nobody else can enter `root`, nobody else can have written to what is in it.
    """
    try:
        closed = not os.lstat(root).st_mode & (stat.S_IXGRP | stat.S_IXOTH)
        for name, kind in walk(root):
            found = os.lstat(root / name)
            shared = not closed and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if kind != "file" or (hasattr(os, "getuid") and found.st_uid != os.getuid()) or shared:
                return name
    except OSError as error:
        return str(error)
    return ""


def private(path: Path) -> str:
    """Why not only this user can have put there what is at `path`; "" if nobody else can.

    Whoever may write to a directory may replace what is in it.
    """
    if not hasattr(os, "getuid"):
        return ""
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            return "is a link"
        if found.st_uid != os.getuid():
            return "belongs to another user"
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return "may be written to by others"
    return ""
