# SPDX-License-Identifier: Apache-2.0
"""Where a node comes from: module path, class, and the innermost source line outside torch."""

from __future__ import annotations

import os
import re
import traceback
from types import TracebackType
from typing import NamedTuple

import torch

from paritas.program import Origin

_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')
TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
#: A module of torch.nn is a line worth reporting only when there is no other.
TORCH_NN = os.path.join(TORCH, "nn", "modules") + os.sep
#: Wrappers whose frames say nothing about the model.
GLUE = (
    f"{os.sep}transformers{os.sep}exporters{os.sep}",
    f"{os.sep}transformers{os.sep}utils{os.sep}generic.py",
    f"{os.sep}paritas{os.sep}capture{os.sep}",
    f"{os.sep}paritas{os.sep}arguments.py",
    f"{os.sep}paritas{os.sep}dropin{os.sep}",
    f"{os.sep}paritas{os.sep}transformers{os.sep}",
)


def is_glue(file: str) -> bool:
    """Whether a source file only hands the model's arguments on."""
    return any(glue in file for glue in GLUE)


class Frame(NamedTuple):
    file: str
    line: int
    function: str
    text: str


class Level(NamedTuple):
    """One entry of a node's module stack."""

    key: str  # unique per call: the second call of a module has another key than the first
    path: str
    module_class: str  # qualified


def frames(node: torch.fx.Node) -> list[Frame]:
    """The node's stack, outermost first, as recorded by torch.export."""
    found: list[Frame] = []
    lines = (node.meta.get("stack_trace") or "").splitlines()
    for number, line in enumerate(lines):
        match = _FRAME.match(line)
        if match:
            following = lines[number + 1].strip() if number + 1 < len(lines) else ""
            text = "" if _FRAME.match(following) else following
            found.append(Frame(match["file"], int(match["line"]), match["function"], text))
    return found


def levels(node: torch.fx.Node) -> list[Level]:
    """The modules that the node was recorded in, the model itself first; empty for nodes of no module."""
    stack = node.meta.get("nn_module_stack") or {}
    found = []
    for key, (path, cls) in stack.items():
        name = cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"
        if not key.startswith("_empty_nn_module_stack"):
            found.append(Level(key, path, name))
    return found


def origin(node: torch.fx.Node) -> Origin:
    """The innermost frame outside torch; torch.nn's own line where a module is used without any code of its own."""
    stack = levels(node)
    path, cls = (stack[-1].path, stack[-1].module_class.rsplit(".", 1)[-1]) if stack else ("", "")
    recorded = [f for f in frames(node) if not is_glue(f.file)]
    outside = [f for f in recorded if not f.file.startswith(TORCH)]
    layers = [f for f in recorded if f.file.startswith(TORCH_NN)]
    if not (outside or layers):
        return Origin(path, cls)
    chosen = (outside or layers)[-1]
    return Origin(path, cls, chosen.file, chosen.line, chosen.text)


def innermost_frame(trace: TracebackType | None) -> str:
    """ "modeling_x.py:88  if x.sum() > 0:" for the innermost frame outside torch and Paritas, or ""."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    outside = [
        frame
        for frame in traceback.extract_tb(trace)
        if not frame.filename.startswith((TORCH, here))
        and not is_glue(frame.filename)
        and f"{os.sep}transformers{os.sep}exporters" not in frame.filename
    ]
    if not outside:
        return ""
    last = outside[-1]
    return f"{os.path.basename(last.filename)}:{last.lineno}  {(last.line or '').strip()}"
