# SPDX-License-Identifier: Apache-2.0
"""src/paritas/open_clip/__init__.pyi: open_clip's exports as type checkers and editors see them, with our keywords.

Written by docs/stubs.py. Nothing of open_clip is imported: its source is read, from where it is installed or from
`.venv/apart`.
"""

from __future__ import annotations

import ast
import importlib.machinery
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent

STUB = ROOT / "src" / "paritas" / "open_clip" / "__init__.pyi"

#: Classes of models, and what makes models -> what that returns.
MODELS = ("CLIP", "CoCa", "CustomTextCLIP")
MAKERS = {
    "create_model": "Model",
    "create_model_and_transforms": "tuple[Model, Any, Any]",
    "create_model_from_pretrained": "Any",  # with return_transform=False the model alone
    "load_openai_model": "Model",
}

HEAD = '''# SPDX-License-Identifier: Apache-2.0
# Written by docs/stubs.py (make docs), for open_clip {version}.
from collections.abc import Mapping
from typing import Any, Literal

import open_clip as _o
import torch
from open_clip import AugmentationCfg

from paritas.ports import Port

Engine = Literal[{engines}]
Mode = Literal[{modes}]
Target = Literal[{targets}]
Weights = Literal[{weights}] | Mapping[str, Any]
Precision = Literal[{precisions}]

class Model(torch.nn.Module):
    """A model of two towers, which an engine computes."""

    @property
    def ports(self) -> list[Port]: ...
    @property
    def engine(self) -> str: ...
    def in_pytorch(self) -> torch.nn.Module: ...
    def encode_image(self, image: Any, normalize: bool = False) -> Any: ...
    def encode_text(self, text: Any, normalize: bool = False) -> Any: ...
    def __getattr__(self, name: str) -> Any: ...
'''


def source() -> Path | None:
    """Where open_clip's source is."""
    apart = str(Path(sys.prefix) / "apart")
    spec = importlib.machinery.PathFinder.find_spec("open_clip", [*sys.path, apart])
    return Path(str(spec.origin)).parent if spec is not None and spec.origin else None


def written(package: Path, kinds: Mapping[str, str], words: Mapping[str, str]) -> str:
    """The stub's text. kinds: keyword of ours -> its type and default. words: what fills the head."""
    version = ast.literal_eval(_assigned(package / "version.py", "__version__")).rpartition(".")[0]
    exported = dict(_exports(package))
    lines = [HEAD.format(version=version, **words)]
    lines += [f"class {name}(Model, _o.{name}): ..." for name in MODELS]
    for name, result in MAKERS.items():
        function = _function(package / f"{exported[name]}.py", name)
        lines += [f"def {name}(", *_parameters(function.args, kinds), f") -> {result}: ..."]
    ours = [f"    {name}: {kind}," for name, kind in kinds.items()]
    lines += ["def port_model(", "    model: Any,", ours[0], "    *,", *ours[1:], ") -> Model: ..."]
    lines += [f"from open_clip import {n} as {n}" for n in sorted(exported) if n not in (*MODELS, *MAKERS)]
    return "\n".join(lines) + "\n"


def precisions() -> list[str]:
    """What `precision=` takes."""
    return list(ast.literal_eval(_assigned(STUB.parent / "making.py", "PRECISIONS")))


def _exports(package: Path) -> Iterator[tuple[str, str]]:
    """Names that open_clip exports, and the file of each."""
    for node in ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from ((alias.name, str(node.module)) for alias in node.names)


def _assigned(file: Path, name: str) -> str:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.unparse(node.value)
    raise SystemExit(f"{file} has no {name}")


def _function(file: Path, name: str) -> ast.FunctionDef:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    raise SystemExit(f"{file} has no function {name}: MAKERS in {Path(__file__).name} is of another version")


def _parameters(arguments: ast.arguments, kinds: Mapping[str, str]) -> Iterator[str]:
    given = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(given) - len(arguments.defaults)) + [ast.unparse(one) for one in arguments.defaults]
    for one, default in zip(given, defaults, strict=True):
        kind = ast.unparse(_Modern().visit(one.annotation)) if one.annotation is not None else "Any"
        if one.arg == "precision":
            kind = kind.replace("str", "Precision")
        yield f"    {one.arg}: {kind}{f' = {default}' if default is not None else ''},"
    yield from ("    *,", *(f"    {name}: {kind}," for name, kind in kinds.items()))
    if arguments.kwarg is not None:
        yield f"    **{arguments.kwarg.arg}: Any,"


class _Modern(ast.NodeTransformer):
    """Optional[X] as X | None, Union[X, Y] as X | Y, Dict as dict."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        name, inner = ast.unparse(node.value), self.visit(node.slice)
        if name in ("Optional", "Union"):
            parts = list(inner.elts) if name == "Union" else [inner, ast.Constant(None)]
            found = parts[0]
            for part in parts[1:]:
                found = ast.BinOp(found, ast.BitOr(), part)
            return found
        return ast.Subscript(self.visit(node.value), inner, node.ctx)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name({"Dict": "dict", "Tuple": "tuple", "List": "list"}.get(node.id, node.id), node.ctx)
