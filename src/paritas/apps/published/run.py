# SPDX-License-Identifier: Apache-2.0
"""`paritas parity`: the documents' models at their real sizes on every engine, in worker processes; resumable.

A worker computes one model with weights of one dtype in every column. Outputs are kept in files until the table is
written, and compared by the parent; a journal says which there are.
"""

from __future__ import annotations

import collections
import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paritas.apps.journal import Journal
from paritas.apps.published.models import Model
from paritas.apps.published.rows import Column, Row, rows_of
from paritas.errors import InputError
from paritas.run import engine
from paritas.workers import Limits, Worker

JOURNAL, ANSWERS = "parity.jsonl", "parity-answers"

DTYPES = ("float32", "float16", "bfloat16")

#: Bytes of memory for each byte of a model's float32 weights, and GiB for the libraries: what was measured.
_COPIES, _LIBRARIES = 1.7, 1.5

#: Called after each column with (columns done, of how many, what).
Told = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class Results:
    """The rows, and what is no row: columns that an engine does not have, models without their library."""

    rows: tuple[Row, ...]
    absent: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    peaks: Mapping[str, float] = dataclasses.field(default_factory=dict)  # model -> GiB of its largest worker


def columns_of(engines: Sequence[str]) -> tuple[list[Column], list[str]]:
    """The columns of these engines, and in words those that they do not have."""
    found, absent = [], []
    for name in engines:
        runtime = engine.engine(name)
        able = runtime.precisions()
        for dtype in DTYPES:
            if able.get(dtype):
                absent.append(f"{name} {dtype}: {able[dtype]}")
            else:
                found += [Column(name, mode, dtype) for mode in sorted(runtime.modes, reverse=True)]
    return found, absent


def tables(
    models: Sequence[Model],
    columns: Sequence[Column],
    directory: Path,
    *,
    limits: Limits,
    layers: int = 0,
    fresh: bool = False,
    told: Told | None = None,
) -> Results:
    """Compute what is not in the journal of `directory` yet, and compare. What failed before is tried again.

    layers: at most so many in models that may be cut; 0 for as many as the limit of memory allows.
    """
    folder = directory / ANSWERS
    if fresh:
        clear(directory)
    folder.mkdir(parents=True, exist_ok=True)
    known = _Known(Journal(directory / JOURNAL, engine.versions(packages())))
    models, missing = _with_library(models)
    models = [model.capped(layers or known.cap(model) or fitting(model, limits.gib)) for model in models]
    steps = _steps(models, columns)
    total = sum(len(step.columns) for step in steps)
    done = total - sum(len(known.left(step, folder)) for step in steps)
    if told is not None:
        told(done, total, "")
    for step in steps:
        for name in _taken(step, known, folder, limits):
            done += 1
            if told is not None:
                told(done, total, f"{step.model.name}: {name}")
    rows: list[Row] = []
    for model in models:
        answers, failed = known.outcome(model, folder)
        rows += rows_of(model, columns, answers, failed)
    return Results(tuple(rows), missing=tuple(missing), peaks=known.peaks(models))


def clear(directory: Path) -> None:
    """Forget what was computed."""
    (directory / JOURNAL).unlink(missing_ok=True)
    shutil.rmtree(directory / ANSWERS, ignore_errors=True)


def packages() -> tuple[str, ...]:
    """Those whose versions belong to the figures."""
    return ("paritas", "torch", "transformers", *engine.packages(), "open_clip_torch")


def _with_library(models: Sequence[Model]) -> tuple[list[Model], list[str]]:
    """Those whose library is installed, and a row for those of which it is not."""
    import importlib.util

    absent = [m for m in models if importlib.util.find_spec(m.entry.library) is None]
    if not absent:
        return list(models), []
    from paritas.apps.published.open_clip_models import INSTALL

    names = ", ".join(model.name for model in absent)
    libraries = ", ".join(dict.fromkeys(model.entry.library for model in absent))
    return [m for m in models if m not in absent], [f"{names}: needs {libraries}. Install it:   {INSTALL}"]


@dataclasses.dataclass(frozen=True)
class _Step:
    """What one worker does: a model with weights of one dtype."""

    model: Model
    weights: str
    columns: tuple[str, ...]


def _steps(models: Sequence[Model], columns: Sequence[Column]) -> list[_Step]:
    """float32 of all models first: the rows that there is a bar for."""
    steps = []
    for weights in dict.fromkeys(("float32", *(column.weights for column in columns))):
        here = [column for column in columns if column.weights == weights]
        eager = dict.fromkeys((weights, *(column.dtype for column in here)))
        names = [f"torch {dtype}" for dtype in eager] + [f"truth {weights}"] + [c.name for c in here]
        steps += [_Step(model, weights, tuple(names)) for model in models]
    return steps


def _taken(step: _Step, known: _Known, folder: Path, limits: Limits) -> Iterator[str]:
    """Compute the columns of a step that are not there; yields each as it is done, or has failed."""
    left = collections.deque(known.left(step, folder))
    place = folder / step.model.entry.digest
    place.mkdir(exist_ok=True)
    worker = Worker("paritas.apps.published.worker", limits)
    try:
        while left:
            began, at = time.perf_counter(), ""
            task = {"entry": step.model.entry.to_json(), "weights": step.weights, "columns": list(left)}
            worker.tell({**task, "folder": str(place)})
            while True:
                answer = worker.answer()
                if isinstance(answer, str) or (set(answer) == {"failed"}):
                    # What ends a worker before its first column would do so for the others too.
                    reason = answer if isinstance(answer, str) else str(answer["failed"])
                    for name in [at] if at in left else list(left):
                        left.remove(name)
                        known.add(step, name, failed=reason if at == name else f"{at or 'start'}: {reason}")
                        yield name
                    break
                at = answer.get("begun", at)
                if "digest" in answer:
                    known.weights(step, answer["digest"])
                if "column" in answer:
                    name, seconds = answer["column"], time.perf_counter() - began
                    left.remove(name)
                    about = {"seconds": round(seconds, 1), "gib": answer.get("gib", 0.0)}
                    known.add(step, name, failed=answer.get("failed", ""), **about)
                    yield name
                if "done" in answer:
                    known.peak(step, answer["done"]["gib"])
                    break
    finally:
        worker.end()


class _Known:
    """The journal: a line for each column that is done or has failed, one for each worker's weights and memory."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def add(self, step: _Step, column: str, *, failed: str = "", **about: float) -> None:
        self._write(step, {"column": column, "failed": failed, **about})

    def weights(self, step: _Step, digest: str) -> None:
        self._write(step, {"weights": digest})

    def peak(self, step: _Step, gib: float) -> None:
        self._write(step, {"gib": gib})

    def cap(self, model: Model) -> int:
        """How many layers of it an earlier run took."""
        return next((line["cap"] or model.depth for line in self._journal.lines if line["model"] == model.name), 0)

    def left(self, step: _Step, folder: Path) -> list[str]:
        made = {line["column"] for line in self._of(step.model) if line.get("failed") == ""}
        place = folder / step.model.entry.digest
        return [name for name in step.columns if name not in made or not (place / f"{name}.npz").is_file()]

    def outcome(self, model: Model, folder: Path) -> tuple[dict[str, list[np.ndarray]], dict[str, str]]:
        """Outputs and failures by column. Workers whose weights differ have computed nothing that can be compared."""
        last = {line["column"]: line["failed"] for line in self._of(model) if "column" in line}
        if len(digests := {line["weights"] for line in self._of(model) if "weights" in line}) > 1:
            reason = f"its workers made {len(digests)} different models of one seed"
            return {}, dict.fromkeys(last, reason)
        answers = {}
        for name in [name for name, failed in last.items() if not failed]:
            with np.load(folder / model.entry.digest / f"{name}.npz", allow_pickle=False) as stored:
                answers[name] = [stored[key] for key in stored.files]
        return answers, {name: failed for name, failed in last.items() if failed}

    def peaks(self, models: Sequence[Model]) -> dict[str, float]:
        found = {m.name: [line["gib"] for line in self._of(m) if "gib" in line] for m in models}
        return {name: max(gibs) for name, gibs in found.items() if gibs}

    def _of(self, model: Model) -> list[dict[str, Any]]:
        return [line for line in self._journal.lines if line["digest"] == model.entry.digest]

    def _write(self, step: _Step, fields: Mapping[str, Any]) -> None:
        about = {"model": step.model.name, "digest": step.model.entry.digest, "cap": step.model.cap}
        self._journal.add({**about, **fields})


def fitting(model: Model, gib: float) -> int:
    """How many layers of it can be computed in so much memory: 0 for all, or for a model that is not cut.

    Raises `InputError` if not even one can.
    """
    if not model.layers:
        return 0
    whole, one = (_weights_gib(m) for m in (model, model.capped(1)))
    each = (whole - one) / (model.depth - 1)
    fit = int(((gib - _LIBRARIES) / _COPIES - (one - each)) / each)
    if fit < 1:
        raise InputError(
            f"{model.name} needs {_LIBRARIES + _COPIES * one:.1f} GiB for a single layer, the limit is {gib:.1f}. "
            "Raise --memory, or leave it out with --models."
        )
    return 0 if fit >= model.depth else fit


def _weights_gib(model: Model) -> float:
    import torch

    from paritas.mending import mend_torchvision

    mend_torchvision()
    with torch.device("meta"):
        built = model.entry.built()
    return sum(parameter.numel() for parameter in built.parameters()) * 4 / 2**30


def available_gib() -> float:
    """Memory that processes may still take; half of what there is where the system does not say."""
    import os

    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 2**20
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**31
