# SPDX-License-Identifier: Apache-2.0
"""How much work something does, counted: no clock, which a busy machine would change."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from typing import Any


def calls_of(function: Callable[..., Any], *args: Any) -> int:
    """The calls of functions, Python's and C's, in `function(*args)`."""
    count = 0

    def counting(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counting)
    try:
        function(*args)
    finally:
        sys.setprofile(before)
    return count


def memory_of(function: Callable[..., Any], *args: Any) -> int:
    """The most bytes that Python held at once for `function(*args)`."""
    tracemalloc.start()
    try:
        function(*args)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
