# SPDX-License-Identifier: Apache-2.0
"""A contender's process, in any interpreter: it imports nothing of Paritas."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def answer(prepare: Callable[[], Callable[[Any], Any]]) -> int:
    """Prepare, and then answer every line of stdin. Only answers go to the standard output."""
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    work = prepare()
    for line in sys.stdin:
        protocol.write(json.dumps(work(json.loads(line))) + "\n")
        protocol.flush()
    return 0


def peak() -> int:
    """Bytes, the most that was resident in this process so far.

    Not getrusage's: that is the parent's where the process began as a copy of it.
    """
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
