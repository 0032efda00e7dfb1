# SPDX-License-Identifier: Apache-2.0
"""How a command names a model: a hub id, a directory, or the user's own code as `package.module:factory`."""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from paritas.errors import SourceError

if TYPE_CHECKING:
    import torch

_CODE = re.compile(r"(?P<place>[^:]+):(?P<factory>[A-Za-z_]\w*)")


def named(source: str) -> str | torch.nn.Module:
    """`source` as it is, or the module that `package.module:factory` or `file.py:factory` makes.

    The factory is a function or class that is called without arguments, or a module that is there already. Importing
    runs that code: it is the user's own, and nothing but the command line names it. Raises `SourceError`.
    """
    code = _CODE.fullmatch(source)
    if code is None and source.endswith(".py"):
        raise SourceError(_no_factory(Path(source)))
    if code is None or Path(source).exists():
        return source
    import torch

    with _explained(source):
        found: Any = getattr(_imported(code["place"]), code["factory"], None)
        if found is None:
            raise SourceError(f"{source}: {code['place']} has no {code['factory']}.")
        made = found if isinstance(found, torch.nn.Module) or not callable(found) else found()
    if not isinstance(made, torch.nn.Module):
        raise SourceError(f"{source} gives {type(made).__name__}, not a torch.nn.Module.")
    return made


def _no_factory(file: Path) -> str:
    """What to write for a file of code. It is read, not run."""
    if not file.is_file():
        return f"There is no file {file}."
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        return f"{file} is no Python: {error}."
    kinds = (ast.ClassDef, ast.FunctionDef)
    names = [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    has = f" It has: {', '.join(names)}." if names else " It has no function and no class."
    return f"{file} is a file of code. Name what makes the model in it:   {file}:{(names or ['build'])[-1]}{has}"


def _imported(place: str) -> ModuleType:
    """As `python file.py` and `python -m package.module` find them: beside the file, and where the command runs."""
    file = Path(place)
    folder = str(file.parent.resolve() if file.suffix == ".py" else Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if file.suffix == ".py":
        if not file.is_file():
            raise SourceError(f"There is no file {file}.")
        place = file.stem
    return importlib.import_module(place)


@contextlib.contextmanager
def _explained(source: str) -> Iterator[None]:
    """Whatever the user's code raises is an error of the source, with the line of that code."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        from paritas.capture.origin import innermost_frame

        where = innermost_frame(error.__traceback__)
        at = f"\n  at {where}" if where else ""
        raise SourceError(f"{source} cannot be made: {type(error).__name__}: {error}{at}") from error
