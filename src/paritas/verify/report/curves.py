# SPDX-License-Identifier: Apache-2.0
"""The error per layer of one or several reports, as a picture: PNG and SVG."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence

from paritas.errors import ParitasError
from paritas.verify.report.panels import panels
from paritas.verify.report.rows import Findings
from paritas.verify.report.svg import draw

INSTALL = (
    "Pictures of curves are drawn by matplotlib, which is not installed. Install it:   pip install 'paritas[report]'"
)


class DrawingMissing(ParitasError, ImportError):
    """A picture was asked for, and matplotlib is not installed."""

    def __init__(self) -> None:
        super().__init__(INSTALL)


def drawable() -> bool:
    """Whether matplotlib is installed. Does not import it."""
    return importlib.util.find_spec("matplotlib") is not None


def png(reports: Sequence[tuple[str, Findings]]) -> bytes:
    """The curves as a PNG file. Raises `DrawingMissing` where matplotlib is not installed."""
    if not drawable():
        raise DrawingMissing
    from paritas.verify.report import drawing

    buffer = io.BytesIO()
    with drawing.style():
        drawing.figure(panels(reports)).savefig(buffer, format="png", **drawing.SAVING)
    return buffer.getvalue()


def svg(reports: Sequence[tuple[str, Findings]]) -> str:
    """The same picture as an <svg> element for a page, in the page's colours; its points are links with tooltips."""
    shown = panels(reports)
    return draw(shown, titles=len(shown) > 1)
