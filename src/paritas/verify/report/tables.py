# SPDX-License-Identifier: Apache-2.0
"""Tables of Markdown, and the figures in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2e}"


def escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(map(escape, cells)) + " |"

    return [line(head), "|" + "---|" * len(head), *map(line, rows)]
