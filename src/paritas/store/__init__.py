# SPDX-License-Identifier: Apache-2.0
"""A port on disk: written whole or not at all (`directory`), with `port.json` (`manifest`), and read after checking."""

from paritas.store.directory import (
    attach,
    check_target,
    inputs,
    keep,
    move_into_place,
    os_errors,
    read,
    read_any,
    replace,
    replace_text,
    write,
)
from paritas.store.manifest import COMPONENT

__all__ = [
    "COMPONENT",
    "attach",
    "check_target",
    "inputs",
    "keep",
    "move_into_place",
    "os_errors",
    "read",
    "read_any",
    "replace",
    "replace_text",
    "write",
]
