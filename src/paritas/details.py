# SPDX-License-Identifier: Apache-2.0
"""What a stage that takes long is at: said where the work is done, shown by whoever listens."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

_listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


def tell(text: str) -> None:
    """Such as "weights: 12 of 156"."""
    if (listener := _listener.get()) is not None:
        listener(text)


@contextlib.contextmanager
def heard(listener: Callable[[str], None]) -> Iterator[None]:
    """While inside, `listener` is called with what `tell` is."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
