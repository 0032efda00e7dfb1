# SPDX-License-Identifier: Apache-2.0
"""Texts that nobody computes with: of an error, a warning, a line of a log."""

from __future__ import annotations

import ast
import functools
import linecache
from types import FrameType

#: Functions that take a condition and a message, or a message alone, by the last part of their names.
_TELL = {
    "torch_compilable_check", "_check", "_check_value", "_check_index", "_check_type", "_assert", "warn", "warning",
    "warning_once", "info", "debug", "error", "exception", "critical", "log", "print",
}  # fmt: skip


def is_message(frame: FrameType) -> bool:
    """Whether the statement that `frame` is at raises, asserts, warns or logs, and does nothing else."""
    return any(first <= frame.f_lineno <= last for first, last in _messages(frame.f_code.co_filename))


@functools.lru_cache(maxsize=256)
def _messages(file: str) -> tuple[tuple[int, int], ...]:
    """The lines of such statements."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError, RecursionError):
        return ()
    return tuple(
        (node.lineno, node.end_lineno or node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Raise, ast.Assert)) or (isinstance(node, ast.Expr) and _tells(node.value))
    )


def _tells(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in _TELL
