# SPDX-License-Identifier: Apache-2.0
"""What `paritas demo` prints fits into the 80 columns that a terminal has."""

from __future__ import annotations

import io

from rich.console import Console

from paritas.apps.demo import SENTENCES, Result, Row

NEAREST = tuple(tuple(j for j in range(len(SENTENCES)) if j != i) for i in range(len(SENTENCES)))


def test_no_word_of_the_tables_is_folded_at_80_columns() -> None:
    worst = "encoder.layer.0.attention.output.dense"
    more = {"ratio": 10.51, "bytes": 91_000_000, "load": 1.2, "first": 12.5, "rankings": NEAREST}
    rows = [
        Row("mindspore", mode, "fp32", "", "ports/mindspore-fp32", "diverges", 1.23e-6, worst, **more)
        for mode in ("graph", "pynative")
    ]
    screen = io.StringIO()
    Console(file=screen, width=80).print(
        Result((*rows, Row("openvino", "", "fp16", "as fp32")), NEAREST, "").terminal()
    )
    lines = [line.split() for line in screen.getvalue().splitlines()]
    assert [
        "mindspore",
        "pynative",
        "fp32",
        "1.23e-06",
        "diverges",
        "10.51x",
        "91",
        "MB",
        "1.2",
        "s",
        "12.5",
        "s",
    ] in lines
    assert worst in screen.getvalue()
    assert f"\n{len(SENTENCES)}  " in screen.getvalue()
