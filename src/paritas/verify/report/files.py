# SPDX-License-Identifier: Apache-2.0
"""A report beside the files of its port."""

from __future__ import annotations

import os
from pathlib import Path

from paritas import store
from paritas.verify.report.components import ComponentReports
from paritas.verify.report.report import ParityReport


def attach(directory: str | os.PathLike[str], report: ParityReport | ComponentReports) -> None:
    """parity.json, PARITY.md and PARITY.html of a port on disk, which they call by its name. Raises `PortError`."""
    place = Path(directory).expanduser().resolve()
    store.attach(place, "parity.json", report.to_json())
    store.attach(place, "PARITY.md", report.to_markdown(place.name))
    store.attach(place, "PARITY.html", report.to_html(place.name))
