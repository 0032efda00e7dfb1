# SPDX-License-Identifier: Apache-2.0
"""`paritas inspect`: everything that a port says about itself. Loads no engine and executes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paritas import files
from paritas.cli.options import AllowModified, Debug, Json, PortDirectory
from paritas.cli.outcome import OK, console, print_json
from paritas.errors import PortError

if TYPE_CHECKING:
    from paritas.program import Artifact
    from paritas.verify import ParityReport


def inspect(
    directory: PortDirectory, allow_modified: AllowModified = False, as_json: Json = False, debug: Debug = False
) -> int:
    """Say what a port is: its original, engine, precision, inputs, outputs, notes, files and parity.

    Every file is checked against port.json; no engine is loaded.

    **Examples**

      paritas inspect clip-ms

      paritas inspect clip-ms --json | jq .manifest.inputs
    """
    from paritas import store

    artifact = store.read(directory, allow_modified=allow_modified)
    report = _report(artifact.directory)
    if as_json:
        print_json(_json(artifact, report))
    else:
        _print(artifact, report)
    return OK


def _report(directory: Path) -> ParityReport | None:
    from paritas.verify import ParityReport

    path = directory / "parity.json"
    if not path.is_file():
        return None
    try:
        return ParityReport.from_json(files.text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise PortError(f"{path} cannot be read: {error}.") from None


def _json(artifact: Artifact, report: ParityReport | None) -> dict[str, Any]:
    from paritas.store.manifest import manifest_to_json

    parity = None
    if report is not None:
        full = json.loads(report.to_json())
        parity = {key: full[key] for key in ("verdict", "error", "environment", "tolerance", "level")}
    return {
        "directory": str(artifact.directory),
        "modified": artifact.modified,
        "manifest": json.loads(manifest_to_json(artifact.manifest)),
        "parity": parity,
    }


def _print(artifact: Artifact, report: ParityReport | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from paritas.guards import in_words, names_in, place_of

    manifest = artifact.manifest
    source = manifest.source
    table = Table(show_header=False, show_edge=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, *lines: str) -> None:
        table.add_row(name, Text("\n".join(lines)))

    where = source.id or "a module in memory"
    row("port", str(artifact.directory), *(["edited since it was written"] if artifact.modified else []))
    row("of", where + (f" at {source.revision}" if source.revision else ""), source.model_class)
    row("engine", " ".join(filter(None, (manifest.engine, manifest.versions.get(manifest.engine, ""), manifest.mode))))
    row("precision", manifest.dtype)
    row("inputs", *map(str, manifest.inputs))
    if manifest.limits:
        row("at most", ", ".join(f"{symbol} <= {size}" for symbol, size in manifest.limits.items()))
    if manifest.guards:
        places = {name: place_of(name, manifest.inputs) for g in manifest.guards for name in names_in(g)}
        row("only where", *(f"{in_words(g.holds, places)}   {g.where}".rstrip() for g in manifest.guards))
    if manifest.constants:
        row("fixed", ", ".join(f"{name}={value!r}" for name, value in manifest.constants.items()))
    row("outputs", *map(str, manifest.outputs))
    if manifest.notes:
        row("notes", *map(str, manifest.notes))
    width = max(map(len, manifest.files), default=0)
    row("files", *(f"{name:<{width}}  {_size(int(entry['bytes'])):>9}" for name, entry in manifest.files.items()))
    row("made with", ", ".join(f"{package} {version}" for package, version in manifest.versions.items()))
    row("parity", *_parity(report, artifact.directory))
    console().print(table)


def _parity(report: ParityReport | None, directory: Path) -> list[str]:
    if report is None:
        return [f"not verified. Do it:   paritas verify {directory}"]
    lines = [f"{report.verdict}, error {report.error:.2e} ({report.environment}, {report.environment.date})"]
    if report.worst_module is not None:
        lines.append(f"worst module: {report.worst_module.name} ({report.worst_module.module_class})")
    return lines


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
