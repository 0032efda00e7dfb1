# SPDX-License-Identifier: Apache-2.0
"""One thread at a time inside MindSpore, and none in a forked process.

MindSpore keeps its mode, the graph that it compiles and its executor once for the whole process: two threads inside it
end in a segmentation fault or in a deadlock (2.10). Its threads do not survive a fork, so that a forked process would
wait for them for ever.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from paritas.errors import EngineError

_Function = TypeVar("_Function", bound=Callable[..., Any])

_lock = threading.RLock()
_used = _forked = False


def _after_fork() -> None:
    global _lock, _forked
    _lock = threading.RLock()  # the old one may be held by a thread that this process does not have
    _forked = _used or _forked


# This module is imported with Paritas, before any engine is.
os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def turn(*, computes: bool = True) -> Iterator[None]:
    """This thread has MindSpore for itself while it is open; a thread may open it again inside.

    computes: not where tensors are only converted, which starts no threads. Raises `EngineError` in a process that
    was forked from one that had computed.
    """
    global _used
    if _forked:
        raise EngineError(
            "mindspore cannot be used here: this process was forked from one in which it had computed, and its "
            "threads do not survive a fork. Start processes with multiprocessing.get_context('spawn'), a DataLoader "
            "with multiprocessing_context='spawn', a server without preloading; or load the port after the fork."
        )
    with _lock:
        _used = _used or computes
        yield


def in_turn(function: _Function) -> _Function:
    """`function`, one thread at a time."""

    @functools.wraps(function)
    def taking_turns(*args: Any, **kwargs: Any) -> Any:
        with turn():
            return function(*args, **kwargs)

    return taking_turns  # type: ignore[return-value]
