# SPDX-License-Identifier: Apache-2.0
"""The tree is what ARCHITECTURE.md says: layers import only earlier ones, files stay small, links resolve."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "paritas"

#: Earlier to later. Everything that is in none of the folders is listed by name.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        *("printable", "errors", "program", "formulas", "outputs", "nesting", "guards", "manifest"),
        *("files", "leftovers", "contents"),
    ),
    ("capture",),
    ("lower",),
    ("run", "store"),
    ("verify",),
    ("verification", "bisection", "bench", "bench_contender", "others", "making", "pipeline", "adoption"),
    ("transformers",),
    ("apps",),
    ("doctor", "demo", "cli", "__main__"),
)


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ".".join(path.relative_to(PACKAGE).with_suffix("").parts), ast.parse(path.read_text())


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "paritas":
                yield from (alias.name for alias in node.names)
            elif node.module.startswith("paritas."):
                yield node.module.removeprefix("paritas.")
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("paritas.") for a in node.names if a.name.startswith("paritas."))


def _layer(module: str) -> int:
    top = module.split(".")[0]
    return next((i for i, layer in enumerate(LAYERS) if top in layer), -1)


def test_every_module_is_in_a_layer() -> None:
    unknown = {name for name, _ in _modules() if name != "__init__" and _layer(name) < 0}
    assert not unknown


def test_a_layer_imports_only_itself_and_earlier_ones() -> None:
    wrong = [
        f"{name} imports {imported}"
        for name, tree in _modules()
        if name != "__init__"
        for imported in _imports(tree)
        if _layer(imported) > _layer(name)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_is_longer_than_600_lines() -> None:
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    long = {str(f.relative_to(ROOT)): n for f in files if (n := len(f.read_text().splitlines())) > 600}
    assert not long


def test_every_source_file_names_its_licence() -> None:
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    assert not [
        f for f in files if f.read_text() and "SPDX-License-Identifier: Apache-2.0" not in f.read_text()[:200]
    ]


def test_engines_are_imported_only_by_their_own_files() -> None:
    """`import openvino` at the top of any other file would load the engine for everybody."""
    allowed = {
        "openvino": ("run.openvino", "lower.openvino"),
        "mindspore": ("lower.mindspore.prelude_",),
    }
    wrong = [
        f"{name} imports {engine}"
        for name, tree in _modules()
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for engine, homes in allowed.items()
        if any(
            target.split(".")[0] == engine
            for target in (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            )
        )
        and not name.startswith(homes)
    ]
    assert not wrong, "\n".join(wrong)


def test_importing_paritas_loads_no_engine_and_changes_nothing() -> None:
    code = (
        "import os, sys; before = dict(os.environ); import paritas; paritas.engines(); "
        "assert dict(os.environ) == before; "
        "heavy = {'torch', 'transformers', 'openvino', 'mindspore'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("document", sorted(p.name for p in ROOT.glob("*.md")))
def test_links_and_paths_in_documents_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    paths = re.findall(r"`((?:src|tests|benchmarks)/[\w./]+)`", text)
    missing = [p for p in [*links, *paths] if not (ROOT / p).exists()]
    assert not missing


def test_architecture_names_every_stage_and_its_entry() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for stage, entry in (
        ("capture", "capture("),
        ("lower", "lower("),
        ("run", "Session.run"),
        ("verify", "verify("),
    ):
        assert f"src/paritas/{stage}/" in text, stage
        assert entry in text, entry


@pytest.mark.parametrize("module", ["paritas.run.openvino", "paritas.lower.openvino"])
def test_openvino_is_kept_from_telling_its_makers(module: str) -> None:
    pytest.importorskip("openvino")
    code = f"import sys, {module}; print('openvino' in sys.modules, sys.modules['openvino_telemetry'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "None"]
