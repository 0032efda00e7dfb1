# SPDX-License-Identifier: Apache-2.0
"""Reports as files, for every command that reads or writes one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paritas import files
from paritas.errors import InputError, PortError

if TYPE_CHECKING:
    from paritas.verify import ComponentReports, ParityReport

    AnyReport = ParityReport | ComponentReports


def read(path: Path) -> list[tuple[str, ParityReport]]:
    """The report of a port, or of a file, by its name: parity.json, or what --json printed. Raises `InputError`.

    Of several components, a report for each.
    """
    from paritas.verify import report_from_json

    file = path / "parity.json" if path.is_dir() else path
    try:
        text = files.text(file, links=True)
        data = files.parsed(text)
    except FileNotFoundError:
        raise InputError(_no_report(path)) from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise InputError(f"{file} is no parity report: {error}.") from None
    if isinstance(data, dict) and isinstance(data.get("report"), dict):
        text = json.dumps(data["report"])
    try:
        return pairs(str(path), report_from_json(text))
    except PortError as error:
        raise InputError(f"{file}: {error}") from None


def _no_report(path: Path) -> str:
    if not path.is_dir():
        return f"There is no file or directory {path}."
    if (path / "port.json").is_file():
        return f"The port {path} has no parity.json. Make it:   paritas verify {path} --attach"
    return f"{path} is no port: it has neither port.json nor parity.json. Give a port, or the file of a report."


def pairs(name: str, one: AnyReport) -> list[tuple[str, ParityReport]]:
    """The reports that are shown, each under a name."""
    from paritas.verify import ComponentReports

    return one.pairs(name) if isinstance(one, ComponentReports) else [(name, one)]


def check_files(*, html: Path | None, png: Path | None) -> None:
    """Refuse before any work what could not be written after it. Raises `InputError` and `DrawingMissing`."""
    for option, path in (("--html", html), ("--png", png)):
        if path is None:
            continue
        parent = path.expanduser().absolute().parent
        if path.is_dir():
            raise InputError(f"{option} {path} is a directory. Give the name of a file.")
        if not parent.is_dir():
            raise InputError(f"{option} {path}: there is no directory {parent}. Make it, or write elsewhere.")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise InputError(f"{option} {path}: no permission to write in {parent}. Write elsewhere.")
    if html is not None and png is not None and html.absolute() == png.absolute():
        raise InputError(f"--html and --png are the same file, {html}. Give two names.")
    if png is not None:
        from paritas.verify.report import curves

        if not curves.drawable():
            raise curves.DrawingMissing


def write_files(reports: Sequence[tuple[str, ParityReport]], *, html: Path | None, png: Path | None) -> None:
    """The page and the picture, each moved into place when it is whole."""
    from paritas import store

    if html is not None:
        from paritas.verify.report.html import joined

        store.replace(html.expanduser(), joined(reports).encode(errors="replace"))
    if png is not None:
        from paritas.verify.report import curves

        store.replace(png.expanduser(), curves.png(reports))


def print_reports(name: str, one: AnyReport) -> None:
    """On the terminal, one after the other."""
    from paritas.cli.outcome import console
    from paritas.verify import terminal

    shown = pairs(name, one)
    for title, report in shown:
        if len(shown) > 1:
            console().print(title, style="bold", markup=False)
        console().print(terminal(report))
