# SPDX-License-Identifier: Apache-2.0
"""Inputs that a port keeps because a search found them: written beside its weights, run by every verification."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save

from paritas import contents, store
from paritas.errors import InputError, PortError
from paritas.program import Artifact
from paritas.run.tensors import tensors
from paritas.verify.inputs.generate import Case
from paritas.verify.report.report import ParityReport

MOST = 5  # as each costs every later verification a run
NAME = "regression: "


def cases(artifact: Artifact, check: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]) -> list[Case]:
    """The inputs that this port keeps, as cases. check: refuses with `InputError` what the port does not take.

    Raises `PortError` for a file that is damaged, or holds what the port does not take.
    """
    found = []
    for path in store.inputs(artifact):
        try:
            name = path.relative_to(artifact.directory).as_posix()
            feed = check(tensors(contents.take(artifact, name), name))
        except (PortError, InputError) as error:
            raise PortError(
                f"{path} holds no inputs of this port: {error}\nRemove it, and verify with allow_modified=True."
            ) from None
        found.append(Case(NAME + path.stem, feed, optional=True, searched=True))
    return found


def keep(artifact: Artifact, case: Case, report: ParityReport) -> tuple[Artifact, ParityReport]:
    """The port with the worst inputs of `report`'s search among those that it keeps, and the report that says so.

    At most `MOST` are kept, those that were worst just now. A port that cannot be written to does not fail: the
    report says why nothing was kept.
    """
    assert report.search is not None
    of = artifact.manifest.source.component
    name = f"regression/{f'{of}-' if of else ''}search-{_digest(case.feed)}.safetensors"
    kept, dropped = "", tuple[str, ...]()
    try:
        kept, dropped, artifact = _keep(artifact, name, case, report)
    except (PortError, SafetensorError, KeyError) as error:
        kept = f"not kept as a regression input: {error}"
    return artifact, dataclasses.replace(report, search=dataclasses.replace(report.search, kept=kept, dropped=dropped))


def _keep(artifact: Artifact, name: str, case: Case, report: ParityReport) -> tuple[str, tuple[str, ...], Artifact]:
    if name in artifact.manifest.files:
        return f"kept already as {name}", (), artifact
    badness = {path.name: _badness(report, NAME + path.stem) for path in store.inputs(artifact)}
    badness[Path(name).name] = _badness(report, case.name)
    # The new one last among equals, so that it does not push out what is as bad.
    ranked = sorted(badness, key=lambda file: badness[file], reverse=True)
    if Path(name).name not in ranked[:MOST]:
        return (f"not kept as a regression input: the {MOST} that the port has are as bad or worse", (), artifact)
    dropped = tuple(f"regression/{file}" for file in ranked[MOST:])
    artifact = store.keep(artifact, name, _bytes(case, report), drop=dropped)
    return f"kept as {name}, which every verification of this port runs from now on", dropped, artifact


def _badness(report: ParityReport, case: str) -> float:
    rows = [row for row in report.outputs if row.case == case]
    return max((math.inf if row.fault else row.excess for row in rows), default=-math.inf)


def _bytes(case: Case, report: ParityReport) -> bytes:
    search = report.search
    assert search is not None
    words = {
        "found by": f"search, seed {search.seed}",
        "was": search.fault or f"{search.excess:.6g}x tolerance",
        "output": search.output,
        "environment": str(report.environment),
        "date": report.environment.date,
    }
    # A copy in C order: safetensors writes the memory of an array as it lies there.
    return save({name: np.array(value, order="C") for name, value in case.feed.items()}, metadata=words)


def _digest(feed: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(feed.items()):
        digest.update(f"{name} {value.dtype} {value.shape} ".encode() + np.array(value, order="C").tobytes())
    return digest.hexdigest()[:8]
