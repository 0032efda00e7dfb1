# SPDX-License-Identifier: Apache-2.0
"""`paritas inspect`: everything that a port says about itself. Loads no engine and executes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paritas import files
from paritas.cli.options import AllowModified, Debug, Json, PortDirectory, Quiet
from paritas.cli.outcome import OK, console, print_json
from paritas.errors import PortError

if TYPE_CHECKING:
    from rich.table import Table

    from paritas.program import Artifact, ComponentArtifacts, Manifest
    from paritas.verify import ComponentReports, ParityReport


def inspect(
    directory: PortDirectory,
    allow_modified: AllowModified = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Say what a port is: its original, engine, precision, inputs, outputs, notes, files and parity.

    Every file is checked against port.json; no engine is loaded.

    **Examples**

      paritas inspect clip-ms

      paritas inspect clip-ms --json | jq .manifest.inputs
    """
    from paritas import store

    artifact = store.read_any(directory, allow_modified=allow_modified)
    report = _report(artifact.directory)
    if as_json:
        print_json(_json(artifact, report))
    else:
        _print(artifact, report)
    return OK


def _report(directory: Path) -> ParityReport | ComponentReports | None:
    from paritas.verify import report_from_json

    path = directory / "parity.json"
    if not path.is_file():
        return None
    try:
        return report_from_json(files.text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise PortError(f"{path} cannot be read: {error}.") from None


_OF_PARITY = ("verdict", "error", "environment", "tolerance", "level", "components")


def _json(artifact: Artifact | ComponentArtifacts, report: ParityReport | ComponentReports | None) -> dict[str, Any]:
    from paritas.store.manifest import manifest_to_json

    def short(full: dict[str, Any]) -> dict[str, Any]:
        found = {key: full[key] for key in _OF_PARITY if key in full}
        return {**found, **{k: {n: short(one) for n, one in v.items()} for k, v in found.items() if k == "components"}}

    return {
        "directory": str(artifact.directory),
        "modified": artifact.modified,
        "manifest": json.loads(manifest_to_json(artifact.manifest)),
        "parity": None if report is None else short(json.loads(report.to_json())),
    }


def _print(artifact: Artifact | ComponentArtifacts, report: ParityReport | ComponentReports | None) -> None:
    from paritas.program import Manifest
    from paritas.verify import ParityReport

    manifest = artifact.manifest
    if report is not None and isinstance(manifest, Manifest) != isinstance(report, ParityReport):
        raise PortError(f"{artifact.directory / 'parity.json'} is not of this port. Verify it again.")
    table = _table()
    edited = ["edited since it was written"] if artifact.modified else []
    _row(table, "port", str(artifact.directory), *edited)
    if isinstance(manifest, Manifest):
        assert report is None or isinstance(report, ParityReport)
        _add(table, manifest, report, artifact.directory)
        _add_files(table, manifest.files)
        console().print(table)
        return
    assert not isinstance(report, ParityReport)
    if manifest.task:
        _row(table, "task", manifest.task)
    _row(table, "components", *(f"{name}: {one.entry}" for name, one in manifest.components.items()))
    _add_files(table, manifest.files)
    console().print(table)
    for name, one in manifest.components.items():
        console().print(f"\n{name}", style="bold", markup=False)
        own = _table()
        _add(own, one, report.get(name) if report is not None else None, artifact.directory)
        console().print(own)


def _table() -> Table:
    from rich.table import Table

    table = Table(show_header=False, show_edge=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _row(table: Table, name: str, *lines: str) -> None:
    from rich.text import Text

    table.add_row(name, Text("\n".join(lines)))


def _add(table: Table, manifest: Manifest, report: ParityReport | None, directory: Path) -> None:
    from paritas.guards import in_words, names_in, place_of
    from paritas.size_names import shown, size_names

    source = manifest.source
    where = source.id or "a module in memory"
    _row(table, "of", where + (f" at {source.revision}" if source.revision else ""), source.model_class)
    engine = (manifest.engine, manifest.versions.get(manifest.engine, ""), manifest.mode)
    _row(table, "engine", " ".join(filter(None, engine)))
    _row(table, "precision", manifest.dtype)
    _row(table, "inputs", *shown(manifest.inputs))
    names = size_names(manifest.inputs)
    if manifest.limits:
        _row(table, "at most", ", ".join(f"{names.get(s, s)} <= {size}" for s, size in manifest.limits.items()))
    if manifest.guards:
        places = {name: place_of(name, manifest.inputs) for g in manifest.guards for name in names_in(g)}
        lines = (f"{in_words(g.holds, places)}   {g.where}".rstrip() for g in manifest.guards)
        _row(table, "only where", *lines)
    if manifest.constants:
        _row(table, "fixed", ", ".join(f"{name}={value!r}" for name, value in manifest.constants.items()))
    _row(table, "outputs", *shown(manifest.outputs, manifest.inputs))
    if manifest.notes:
        _row(table, "notes", *map(str, manifest.notes))
    _row(table, "made with", ", ".join(f"{package} {version}" for package, version in manifest.versions.items()))
    _row(table, "parity", *_parity(report, directory))


def _add_files(table: Table, listed: Mapping[str, Mapping[str, Any]]) -> None:
    width = max(map(len, listed), default=0)
    _row(table, "files", *(f"{name:<{width}}  {_size(int(entry['bytes'])):>9}" for name, entry in listed.items()))


def _parity(report: ParityReport | None, directory: Path) -> list[str]:
    if report is None:
        return [f"not verified. Do it:   paritas verify {directory}"]
    lines = [f"{report.verdict}, error {report.error:.2e} ({report.environment}, {report.environment.date})"]
    if report.worst_module is not None:
        lines.append(f"worst module: {report.worst_module.name} ({report.worst_module.module_class})")
    return lines


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
