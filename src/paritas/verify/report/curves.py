# SPDX-License-Identifier: Apache-2.0
"""The error per layer of one or several reports, as a picture: PNG and SVG."""

from __future__ import annotations

import html
import importlib.util
import io
import re
from collections.abc import Mapping, Sequence

from paritas.errors import ParitasError
from paritas.verify.report.panels import Panel, panels
from paritas.verify.report.rows import Findings

INSTALL = "The curves are drawn by matplotlib, which is not installed. Install it:   pip install 'paritas[report]'"


class DrawingMissing(ParitasError, ImportError):
    """A picture was asked for, and matplotlib is not installed."""

    def __init__(self) -> None:
        super().__init__(INSTALL)


def drawable() -> bool:
    """Whether matplotlib is installed. Does not import it."""
    return importlib.util.find_spec("matplotlib") is not None


def png(reports: Sequence[tuple[str, Findings]]) -> bytes:
    """The curves as a PNG file. Raises `DrawingMissing` where matplotlib is not installed."""
    return _drawn(panels(reports), "png")


def svg(reports: Sequence[tuple[str, Findings]]) -> str:
    """The same picture as an <svg> element for a page, in the page's colours; its points are links with tooltips.

    Raises `DrawingMissing` where matplotlib is not installed.
    """
    shown = panels(reports)
    text = _drawn(shown, "svg", titles=len(shown) > 1).decode()
    tooltips = {
        line.anchors[row.name]: f"{row}\n{line.label}" for panel in shown for line in panel.lines for row in line.rows
    }
    return _explained(_themed(text), tooltips)


def _drawn(shown: Sequence[Panel], kind: str, *, titles: bool = True) -> bytes:
    if not drawable():
        raise DrawingMissing
    from paritas.verify.report import drawing

    buffer = io.BytesIO()
    with drawing.style():
        drawing.figure(shown, titles=titles).savefig(buffer, format=kind, **drawing.SAVING[kind])
    return buffer.getvalue()


def _themed(text: str) -> str:
    """What matplotlib wrote, without the XML prologue and sizes, with `var(--ink)` and the like for our colours."""
    from paritas.verify.report.drawing import COLOURS

    text = text[text.index("<svg") :]
    for name, colour in COLOURS.items():
        text = re.sub(rf"(?<=: ){re.escape(colour)}(?=[;\"])", f"var(--{name})", text)
    head, _, body = text.partition(">")
    return re.sub(r' (width|height)="[^"]*"', "", head) + ">" + body


def _explained(text: str, tooltips: Mapping[str, str]) -> str:
    """Links that stay in the page, where matplotlib's open another tab, each with its tooltip."""

    def link(found: re.Match[str]) -> str:
        return f'<a href="#{found[1]}"><title>{html.escape(tooltips[found[1]])}</title>'

    return re.sub(r'<a xlink:href="#(r\d+-m\d+)"[^>]*>', link, text)
