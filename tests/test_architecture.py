# SPDX-License-Identifier: Apache-2.0
"""The tree is what ARCHITECTURE.md says: layers import only earlier ones, files stay small, links resolve."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "paritas"

#: Earlier to later. Everything that is in none of the folders is listed by name.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        *("printable", "errors", "dtypes", "options", "program", "formulas", "pytree", "arguments", "guards", "caches"),
        "size_names",
        *("files", "leftovers", "details", "contents", "workers", "extras", "calibration", "mending", "clusters"),
    ),
    ("capture",),
    ("lower",),
    ("run", "store"),
    ("verify",),
    ("bench", "components", "others", "making", "ports", "pipeline", "modes", "texts", "adoption"),
    ("dropin",),
    ("transformers",),
    ("diffusers", "open_clip", "clip", "sentence_transformers", "rl"),
    ("apps",),
    ("serve",),
    ("cli", "__main__"),
)


@functools.cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _files(package: Path = PACKAGE) -> dict[str, ast.Module]:
    """The syntax tree of each file by its dotted name, which for a folder is that of its `__init__.py`."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = _parsed(path)
    return found


def _names_imported(tree: ast.Module, files: Mapping[str, ast.Module]) -> Iterator[tuple[str, str]]:
    """(file, name) of every import of ours in a file, wherever it stands; name "" where the file itself is taken."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                if inside in files:
                    yield inside, ""
                elif node.module in files:
                    yield node.module, alias.name


def _circles(files: Mapping[str, ast.Module]) -> list[tuple[str, ...]]:
    """The sets of files of which each imports, by way of others, itself."""
    imports = {name: {file for file, _ in _names_imported(tree, files)} - {name} for name, tree in files.items()}
    reached = {name: set(direct) for name, direct in imports.items()}
    for middle in files:
        for found in reached.values():
            if middle in found:
                found |= reached[middle]
    inside = [name for name in files if name in reached[name]]
    return sorted({tuple(o for o in inside if o in reached[n] and n in reached[o]) for n in inside})


def _private_imports(files: Mapping[str, ast.Module]) -> list[str]:
    return [
        f"{name} imports {imported} of {file}"
        for name, tree in files.items()
        for file, imported in _names_imported(tree, files)
        if imported.startswith("_") and not imported.startswith("__")
    ]


def test_no_file_imports_itself_by_way_of_others() -> None:
    assert not _circles(_files())


def test_what_another_file_imports_has_no_underscore() -> None:
    assert not _private_imports(_files())


def test_circles_and_private_imports_are_found(tmp_path: Path) -> None:
    package = tmp_path / "made"
    (package / "room").mkdir(parents=True)
    for name, text in {
        "__init__.py": "",
        "top.py": "from made.room import inner",
        "room/__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import made.below",
        "room/inner.py": "def f():\n    from made.top import g, _h",
        "below.py": "from made.room import something",
        "apart.py": "from made import top",
    }.items():
        (package / name).write_text(text)
    files = _files(package)
    assert _circles(files) == [("made.below", "made.room"), ("made.room.inner", "made.top")]
    assert _private_imports(files) == ["made.room.inner imports _h of made.top"]


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ".".join(path.relative_to(PACKAGE).with_suffix("").parts), _parsed(path)


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


def _sources() -> list[Path]:
    return [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]


def test_no_file_is_longer_than_600_lines() -> None:
    long = {str(f.relative_to(ROOT)): n for f in _sources() if (n := len(f.read_text().splitlines())) > 600}
    assert not long


def test_every_source_file_names_its_licence() -> None:
    assert not [
        f for f in _sources() if f.read_text() and "SPDX-License-Identifier: Apache-2.0" not in f.read_text()[:200]
    ]


def test_no_source_file_holds_a_character_that_nobody_sees() -> None:
    """A pattern with a backspace in it, where its word boundary was meant, looks right and finds nothing."""
    assert [str(path) for path in _sources() if re.search(r"[\x00-\x09\x0b-\x1f\x7f]", path.read_text())] == []


def test_engines_are_imported_only_by_their_own_files() -> None:
    """`import openvino` at the top of any other file would load the engine for everybody."""
    allowed = {
        "openvino": ("run.openvino", "lower.openvino"),
        "mindspore": ("run.mindspore.trial", "lower.mindspore.prelude."),
    }
    wrong = [
        f"{name} imports {engine}"
        for name, tree in _modules()
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for engine, homes in allowed.items()
        if any(
            target.split(".")[0] == engine
            for target in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        )
        and not name.startswith(homes)
    ]
    assert not wrong, "\n".join(wrong)


def _engines() -> set[str]:
    from paritas.run.engine import ENGINES

    return set(ENGINES)


def _is_of_engine(node: ast.AST, names: Collection[str]) -> bool:
    return isinstance(node, ast.Constant) and node.value in names


def _engines_compared(tree: ast.Module, names: Collection[str]) -> Iterator[str]:
    """Where a file asks which engine it is: "line: code".

    "torch" and "mindspore" are also whose tensors a caller has, and packages: what is compared is then called a
    framework or a module.
    """
    others = set(names) - {"torch"}
    outside = {id(inner): node for node in ast.walk(tree) for inner in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        about = node
        match node:
            case ast.Compare():
                sides = [node.left, *node.comparators]
                inner = [leaf for side in sides for leaf in getattr(side, "elts", [side])]
                found = any(_is_of_engine(leaf, names) for leaf in inner)
            case ast.Dict():
                found = any(key is not None and _is_of_engine(key, names) for key in node.keys)
            case ast.Tuple() | ast.List() | ast.Set():
                found, about = any(_is_of_engine(leaf, others) for leaf in node.elts), outside[id(node)]
            case ast.Subscript():
                found = _is_of_engine(node.slice, names)
            case ast.MatchValue():
                found = _is_of_engine(node.value, names)
            case ast.Call(func=ast.Attribute(attr="get" | "pop" | "startswith" | "endswith" | "removeprefix")):
                found = any(_is_of_engine(leaf, names) for leaf in node.args)
            case _:
                continue
        if found and not re.search("framework|module", text := ast.unparse(about), re.IGNORECASE):
            yield f"{node.lineno}: {text[:100]}"


def _homes_of_engines(names: Collection[str]) -> tuple[str, ...]:
    return ("run.engine", *(f"{room}.{name}" for room in ("run", "lower") for name in names))


def test_an_engines_name_is_compared_at_home_only() -> None:
    """What the rest has to know of an engine its adapter says: see CONTRIBUTING.md, "Add an engine"."""
    names = _engines()
    wrong = [
        f"{name}:{found}"
        for name, tree in _modules()
        if not f"{name}.".startswith(tuple(f"{home}." for home in _homes_of_engines(names)))
        and name not in NAMES_OF_PACKAGES
        for found in _engines_compared(tree, names)
    ]
    assert not wrong, "\n".join(wrong)


#: Files in which an engine's name is that of a package, as somebody else's contract has it.
NAMES_OF_PACKAGES = {"apps.hf_backend": "transformers' exporters list the packages that they need by name"}


@pytest.mark.parametrize(
    "code",
    [
        'engine == "openvino"',
        '"torch" != port.manifest.engine',
        'engine in ("torch", "numpy")',
        'BEST = ("openvino", "torch")',
        'TITLES = {"mindspore": "MindSpore"}',
        'TITLES["openvino"]',
        'titles.get("torch", "")',
        'column.startswith("openvino")',
        'match engine:\n    case "mindspore":\n        pass',
    ],
)
def test_a_comparison_of_an_engines_name_is_found(code: str) -> None:
    assert list(_engines_compared(ast.parse(code), _engines()))


@pytest.mark.parametrize(
    "code",
    [
        'framework == "torch"',
        'cls.__module__.partition(".")[0] in ("torch", "typing")',
        'FRAMEWORKS = ("torch", "mindspore", "numpy")',
        'port(source, engine="openvino")',
        '"The engine torch has no modes."',
    ],
)
def test_frameworks_and_packages_are_no_engines(code: str) -> None:
    assert not list(_engines_compared(ast.parse(code), _engines()))


#: Whose models a namespace may stand in for.
_LIBRARIES = ("transformers", "diffusers", "timm", "clip", "open_clip", "sentence_transformers")


def test_the_core_of_drop_ins_knows_no_library_of_models() -> None:
    """Neither by import nor by name: what it has to know is registered (`dropin.library.Library`)."""
    wrong = [
        f"{name}:{node.lineno}"
        for name, tree in _modules()
        if name.startswith("dropin.")
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(a.name.split(".")[0] in _LIBRARIES for a in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in _LIBRARIES)
        or (isinstance(node, ast.Constant) and str(node.value).split(".")[0] in _LIBRARIES)
    ]
    assert not wrong


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


@pytest.mark.parametrize("module", ["paritas.run.openvino.session", "paritas.lower.openvino.convert"])
def test_openvino_is_kept_from_telling_its_makers(module: str) -> None:
    pytest.importorskip("openvino")
    code = f"import sys, {module}; print('openvino' in sys.modules, sys.modules['openvino_telemetry'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "None"]
