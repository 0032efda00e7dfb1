# SPDX-License-Identifier: Apache-2.0
"""Copies the functions that a generated module needs out of `attention_and_norm.py` and the files beside it`."""

from __future__ import annotations

import ast
import functools
from collections.abc import Collection
from pathlib import Path

from paritas.errors import LoweringError
from paritas.lower.mindspore.write.source import wrap

_LIBRARIES = (
    "attention_and_norm.py",
    "torch_semantics.py",
    "images.py",
    "experts.py",
    "signals.py",
    "special.py",
    "order.py",
    "exact.py",
    "matrices.py",
)


@functools.cache
def _definitions() -> dict[str, tuple[str, frozenset[str]]]:
    """name -> (source text, the names that it reads), in the order of the file."""
    texts = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in _LIBRARIES]
    found = {}
    for text, node in ((t, node) for t in texts for node in ast.parse(t).body):
        segment = ast.get_source_segment(text, node) or ""
        if isinstance(node, ast.FunctionDef):
            name, segment = node.name, _without_types(segment, node)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        else:
            continue
        reads = frozenset(n.id for n in ast.walk(node) if isinstance(n, ast.Name))
        found[name] = (segment, reads)
    return found


def _without_types(text: str, node: ast.FunctionDef) -> str:
    """The source of a function as generated code has it: its grammar has no annotations. `node` loses them too."""
    assert node.returns is not None, f"{node.name} says not what it returns"
    end = (node.returns.end_lineno or 0) - node.lineno + 1
    node.returns = None
    for argument in node.args.args:
        argument.annotation = None
    lines = text.splitlines()
    comment = lines[end - 1].partition(":  #")[2]
    header = f"def {node.name}({ast.unparse(node.args)}):" + (f"  #{comment}" if comment else "")
    return "\n".join([*wrap(header, 0), *lines[end:]])


#: Everything that the library defines: no variable of generated code may hide it.
NAMES = frozenset(_definitions())


def source(names: Collection[str]) -> str:
    """The source of `names` and of all that they use: primitives first, then functions, blank lines between."""
    known = _definitions()
    unknown = set(names) - set(known)
    if unknown:
        raise LoweringError(f"{' and '.join(_LIBRARIES)} define no {', '.join(sorted(unknown))}.")
    needed, queue = set(), list(names)
    while queue:
        name = queue.pop()
        if name in known and name not in needed:
            needed.add(name)
            queue += known[name][1]
    chosen = [(name, known[name][0]) for name in known if name in needed]
    values = [text for _, text in chosen if not text.startswith("def ")]
    functions = [text for _, text in chosen if text.startswith("def ")]
    return "\n\n\n".join(part for part in ("\n".join(values), *functions) if part) + (
        "\n" if chosen else ""
    )
