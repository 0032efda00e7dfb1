# SPDX-License-Identifier: Apache-2.0
"""A generated module as a running one: executed under a name of its own, and filled with its weights.

MindSpore compiles a cell from its source, which it asks Python for again at each new shape. Were the module known by
its file, MindSpore would compile what stands there by then, in the encoding that its first line names. So the text
that was checked is kept where Python looks for sources that are no files, and is the only one that it finds.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import itertools
import linecache
import os
import secrets
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paritas import contents, leftovers
from paritas.errors import PortError, reason_of
from paritas.program import Artifact
from paritas.run.tensors import tensors

_serial = itertools.count()


class _Source:
    """What Python asks for a module's source where no file has it, should the cache of lines have been cleared."""

    def __init__(self, source: str) -> None:
        self._source = source

    def get_source(self, name: str) -> str:
        return self._source


def source_of(artifact: Artifact) -> str:
    """The text of the artifact's module. Raises `TamperedPort` for one that is no plain UTF-8, unless it was edited."""
    from paritas.lower.mindspore.check import grammar

    data = bytes(contents.take(artifact, artifact.manifest.entry))
    return grammar.decode(data, str(artifact.entry), trusted=bool(artifact.modified))


@functools.cache
def shelf() -> Path:
    """Where this process keeps what MindSpore wants to have on the disk."""
    return leftovers.for_this_process("mindspore")


def _copy(source: str, name: str) -> Path:
    """The text in a file that only this process knows, from which MindSpore quotes lines in its log.

    It opens what the module is called by, once for each operator that it compiles, and reports as an error that it
    cannot. What it compiles is not read from there.
    """
    directory = shelf() / secrets.token_hex(8)
    directory.mkdir(mode=0o700)
    file = directory / name
    file.write_text(source, encoding="utf-8")
    return file


def execute(source: str, file: Path, *, trusted: bool, elements: int) -> types.ModuleType:
    """The module, under a name of its own. Not by import, which would take a .pyc that lies beside it.

    elements: of its weights in all, which bounds what it may make. Raises
    `TamperedPort` for what the generator cannot have written, unless it is `trusted`, and `PortError` for what
    cannot be executed.
    """
    from paritas.lower.mindspore.check import grammar

    if not trusted:
        grammar.check(source, str(file), elements=elements)
    module = types.ModuleType(f"paritas_port_{os.getpid()}_{next(_serial)}")
    module.__file__ = str(_copy(source, file.name))
    module.__loader__ = _Source(source)  # type: ignore[assignment]
    lines = source.splitlines(keepends=True)
    linecache.cache[module.__file__] = (len(source), None, lines, module.__file__)
    sys.modules[module.__name__] = module  # Graph mode looks up the globals of a cell's module by its name
    try:
        exec(compile(source, module.__file__, "exec"), module.__dict__)  # noqa: S102 - just checked, see grammar.py
    except Exception as error:
        forget(module)
        raise PortError(f"{file} cannot be executed: {reason_of(error)}.") from error
    return module


def forget(module: types.ModuleType) -> None:
    """Remove what `execute` has left in the interpreter."""
    sys.modules.pop(module.__name__, None)
    linecache.cache.pop(str(module.__file__), None)
    copy = Path(str(module.__file__))
    with contextlib.suppress(OSError):
        copy.unlink()
        copy.parent.rmdir()


def weights(artifact: Artifact) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The parameters and the constants that the artifact's files hold. Raises `PortError`, `TamperedPort`."""
    names = [
        artifact.manifest.settings.get(key, default)
        for key, default in (("weights", "model.safetensors"), ("constants", "constants.safetensors"))
    ]
    if not all(isinstance(name, str) for name in names):
        raise PortError(f"{artifact.directory}: port.json does not say where its weights are.")
    parameters, constants = names
    shards = artifact.manifest.settings.get("shards") or [parameters]
    if not (isinstance(shards, list | tuple) and all(isinstance(name, str) for name in shards)):
        raise PortError(f"{artifact.directory}: port.json does not say where its weights are.")
    held: dict[str, np.ndarray] = {}
    for shard in shards:
        found = tensors(contents.take(artifact, shard), str(artifact.directory / shard))
        if twice := found.keys() & held.keys():
            raise PortError(f"{artifact.directory}: two of its files hold weights of the name {min(twice)}.")
        held |= found
    # Without a setting it is there only if the module needs one.
    named = "constants" in artifact.manifest.settings or contents.has(artifact, constants)
    return held, (tensors(contents.take(artifact, constants), str(artifact.directory / constants)) if named else {})


def fill(
    ms: Any,
    cell: Any,
    source: str,
    artifact: Artifact,
    parameters: Mapping[str, np.ndarray],
    constants: Mapping[str, np.ndarray],
) -> None:
    """Give every parameter and every constant of `cell` its value; of its shape and dtype, and no other may be there.

    Raises `PortError` naming what is missing, what is unexpected, and what is of another shape or dtype.
    """
    where = f"{artifact.directory}: "
    known = cell.parameters_dict()
    _check_names(where, "weights", artifact.manifest.entry, set(parameters), set(known))
    for name, parameter in known.items():
        _check_kind(where, name, parameters[name], parameter)
        # from_numpy shares the memory: one copy of the weights in all.
        parameter.set_data(ms.Tensor.from_numpy(parameters[name]))
    places = dict(cell.cells_and_names())
    empty = _empty_buffers(source)
    needed = {
        f"{path}.{attribute}".lstrip(".")
        for path, one in places.items()
        for attribute in empty.get(type(one).__name__, ())
    }
    _check_names(where, "constants", artifact.manifest.entry, set(constants), needed)
    for name, value in constants.items():
        path, _, attribute = name.rpartition(".")
        buffers = places[path]._buffers
        _check_kind(where, name, value, buffers[attribute])
        buffers[attribute] = ms.Tensor(value)


def _empty_buffers(source: str) -> dict[str, list[str]]:
    """Class -> its buffers whose values are in the file: the module makes zeros of their shape to stand for them."""
    found: dict[str, list[str]] = {}
    inits = (
        (definition, statement.value)
        for definition in ast.parse(source).body
        if isinstance(definition, ast.ClassDef)
        for item in definition.body
        if isinstance(item, ast.FunctionDef) and item.name == "__init__"
        for statement in item.body
        if isinstance(statement, ast.Expr)
    )
    for definition, made in inits:
        match made:
            case ast.Call(
                func=ast.Attribute(value=ast.Name("self"), attr="register_buffer"),
                args=[
                    ast.Constant(str(name)),
                    ast.Call(func=ast.Attribute(ast.Name("ops"), "zeros"), args=[ast.Tuple(sizes), *_]),
                ],
            ) if not any(isinstance(size, ast.Constant) and size.value == 0 for size in sizes):
                found.setdefault(definition.name, []).append(name)
    return found


def _check_names(where: str, what: str, entry: str, have: set[str], want: set[str]) -> None:
    if have != want:
        raise PortError(
            f"{where}its {what} do not fit {entry}: missing {_some(want - have)}; unexpected {_some(have - want)}."
        )


def _check_kind(where: str, name: str, value: np.ndarray, declared: Any) -> None:
    have, want = (value.dtype.name, value.shape), (str(declared.dtype).lower(), tuple(declared.shape))
    if have != want:
        raise PortError(
            f"{where}{name} is {have[0]}{list(have[1])} in its file, {want[0]}{list(want[1])} in the module."
        )


def _some(names: set[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(listed[:5]) + more if listed else "none"
