# SPDX-License-Identifier: Apache-2.0
"""Where a node comes from: module path, class, and the source lines from the module's forward to the operator."""

from __future__ import annotations

import functools
import linecache
import os
import re
import sysconfig
import traceback
from types import FrameType, TracebackType
from typing import NamedTuple

import torch

from paritas.program import Frame, Origin, place_of

_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')
TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
#: A module of torch.nn is a line worth reporting only when there is no other.
TORCH_NN = os.path.join(TORCH, "nn", "modules") + os.sep
_PYTHON = sysconfig.get_paths()["stdlib"] + os.sep
_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
#: Wrappers whose frames say nothing about the model, and libraries whose functions are operators to it.
GLUE = (
    f"{os.sep}transformers{os.sep}exporters{os.sep}",
    f"{os.sep}transformers{os.sep}utils{os.sep}",
    f"{os.sep}einops{os.sep}",
    f"{os.sep}paritas{os.sep}capture{os.sep}",
    f"{os.sep}paritas{os.sep}arguments.py",
    f"{os.sep}paritas{os.sep}dropin{os.sep}",
    f"{os.sep}paritas{os.sep}transformers{os.sep}",
)


@functools.lru_cache(maxsize=4096)
def is_glue(file: str) -> bool:
    """Whether a source file only hands the model's arguments on."""
    return any(glue in file for glue in GLUE)


@functools.lru_cache(maxsize=4096)
def is_code_of_model(file: str, function: str) -> bool:
    """Whether a frame says what a model computes: not torch's, Python's own, or glue; forwards of torch.nn do."""
    if file.startswith(TORCH):
        return file.startswith(TORCH_NN) and function == "forward"
    if file.startswith(_PYTHON) and not any(part in file for part in _PACKAGES):
        return False
    return not is_glue(file)


class Level(NamedTuple):
    """One entry of a node's module stack."""

    key: str  # unique per call: the second call of a module has another key than the first
    path: str
    module_class: str  # qualified


def frames(node: torch.fx.Node) -> tuple[Frame, ...]:
    """The model's own frames of the node's stack, outermost first."""
    return _read(node.meta.get("stack_trace") or "")


@functools.lru_cache(maxsize=4096)
def _read(trace: str) -> tuple[Frame, ...]:
    found: list[Frame] = []
    lines = trace.splitlines()
    for number, line in enumerate(lines):
        match = _FRAME.match(line)
        if match and is_code_of_model(match["file"], match["function"]):
            following = lines[number + 1].strip() if number + 1 < len(lines) else ""
            text = "" if _FRAME.match(following) else following
            found.append(Frame(match["file"], int(match["line"]), match["function"], text))
    return tuple(found)


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
    """Module and lines of a node; torch.nn's own line where a module is used without any code of its own."""
    stack = levels(node)
    path, cls = (stack[-1].path, stack[-1].module_class.rsplit(".", 1)[-1]) if stack else ("", "")
    return Origin(path, cls, _since_forward(node.meta.get("stack_trace") or ""))


@functools.lru_cache(maxsize=4096)
def _since_forward(trace: str) -> tuple[Frame, ...]:
    recorded = _read(trace)
    return _calls(tuple(frame for frame in recorded if not frame.file.startswith(TORCH))) or recorded[-1:]


def _calls(outside: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """The frames from the innermost forward on; the innermost alone where there is no forward."""
    forwards = [place for place, frame in enumerate(outside) if frame.function == "forward"]
    return outside[forwards[-1] if forwards else -1 :]


def running(frame: FrameType | None) -> tuple[Frame, ...]:
    """The model's frames that are running, from the innermost forward on."""
    found: list[Frame] = []
    while frame is not None and not (found and found[-1].function == "forward"):
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if is_code_of_model(file, name) and not file.startswith(TORCH):
            found.append(_frame(file, frame.f_lineno, name))
        frame = frame.f_back
    return _calls(tuple(reversed(found)))


def innermost_frame(trace: TracebackType | None) -> str:
    """ "modeling_x.py:88  if x.sum() > 0:" for the innermost frame outside torch and Paritas, or "".

    And where the model called it, if that is in another file.
    """
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    outside = [
        _frame(frame.f_code.co_filename, line, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(trace)
        if is_code_of_model(frame.f_code.co_filename, frame.f_code.co_name)
        and not frame.f_code.co_filename.startswith((TORCH, here))
    ]
    return place_of(_calls(tuple(outside)))


def _frame(file: str, line: int, function: str) -> Frame:
    return Frame(file, line, function, linecache.getline(file, line).strip())
