# SPDX-License-Identifier: Apache-2.0
"""Every function between a model's forward and an operator, of which torch.export records forwards alone."""

from __future__ import annotations

import contextlib
import functools
import linecache
import sys
import traceback
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import proxy
from torch.fx.proxy import TracerBase

from paritas.capture.origin import is_code_of_model
from paritas.capture.patches import around

_MODULE = sys.modules[torch.nn.Module.__module__].__file__


@around
@contextlib.contextmanager
def every_frame() -> Iterator[None]:
    """torch 2.13 (torch/fx/proxy.py, `_filter_traceback_frames`) leaves out all functions but those called "forward":
    `rotate_half` would be the line that calls the function which calls it. And for each node it describes every frame
    of the stack anew, with its text: a sixth of the time of a capture."""
    tracer: Any = TracerBase
    module: Any = proxy
    own, captured = tracer._filter_traceback_frames, module.CapturedTraceback
    tracer._filter_traceback_frames, module.CapturedTraceback = _kept, _Stack
    try:
        yield
    finally:
        tracer._filter_traceback_frames, module.CapturedTraceback = own, captured


class _Stack:
    """What torch asks of its `CapturedTraceback`."""

    def __init__(self, frames: list[traceback.FrameSummary]) -> None:
        self._frames = frames

    @classmethod
    def extract(cls) -> _Stack:
        """The frames of the caller, outermost first."""
        found: list[traceback.FrameSummary] = []
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None:
            found.append(_summary(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
            frame = frame.f_back
        return cls(found[::-1])

    def summary(self) -> list[traceback.FrameSummary]:
        return self._frames


@functools.lru_cache(maxsize=4096)
def _summary(file: str, line: int | None, function: str) -> traceback.FrameSummary:
    return traceback.FrameSummary(file, line, function, lookup_line=False)


class _Recorded(traceback.StackSummary):
    """Frames whose text is made once: a line runs once for each layer."""

    def format(self, **options: Any) -> list[str]:
        return [_text(frame.filename, frame.lineno or 0, frame.name) for frame in self]


def _kept(tracer: TracerBase, stack: list[traceback.FrameSummary]) -> traceback.StackSummary:
    """The model's own frames from the first forward on, outermost first, without what decorates a forward."""
    first = next((place for place, frame in enumerate(stack) if frame.name == "forward"), len(stack))
    kept = _Recorded()
    called: int | None = None  # how many frames there were when torch.nn called a module
    for frame in stack[first:]:
        if frame.name == "_call_impl" and frame.filename == _MODULE:
            called = len(kept)
        elif is_code_of_model(frame.filename, frame.name):
            if frame.name == "forward":
                del kept[called if called is not None else len(kept) :]
                called = None
            kept.append(frame)
    return kept


@functools.lru_cache(maxsize=4096)
def _text(file: str, line: int, function: str) -> str:
    text = linecache.getline(file, line).strip()
    return f'  File "{file}", line {line}, in {function}\n' + (f"    {text}\n" if text else "")
