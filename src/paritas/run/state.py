# SPDX-License-Identifier: Apache-2.0
"""The keys and values of a generation that is going on, between one call of the network and the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from paritas.caches import begun, is_state, remembered, unchanged
from paritas.program import Manifest
from paritas.run.session import Remembers, Session, State

Array = np.ndarray


def new_state(session: Session, manifest: Manifest) -> State:
    """A generation of which nothing is remembered yet: inside the engine where it keeps keys and values, else here."""
    return session.state() if isinstance(session, Remembers) else ArrayState(session, manifest)


def run_last(state: State, feed: Mapping[str, Array], tokens: int, last: int) -> dict[int, Array]:
    """As `state.run`, with the scores of at least so many of the last tokens, where it can leave out the others."""
    # Asked for by name: a protocol would cost more than all checks of a step.
    found = getattr(state, "run_last", None) if last else None
    return found(feed, tokens, last) if found else state.run(feed, tokens)


class ArrayState:
    """Memory as arrays that go into the network and come out of it: for every engine."""

    def __init__(self, session: Session, manifest: Manifest) -> None:
        self._session, self._manifest = session, manifest
        self._names = remembered(manifest)
        self._skipped = set(self._names.values()) | unchanged(manifest)
        self._arrays: list[Array] = []
        self._rows: Array | None = None

    @property
    def length(self) -> int:
        growing = (a.shape[2] for name, a in zip(self._names, self._arrays, strict=False) if not is_state(name))
        return next(growing, int(bool(self._arrays)))

    def run(self, feed: Mapping[str, Array], tokens: int) -> dict[int, Array]:
        if not self._arrays:
            self._arrays = list(begun(self._manifest, feed).values())
        found = self._session.run({**feed, **dict(zip(self._names, self.arrays(), strict=True))})
        self._arrays = [found[index] for index in self._names.values()]
        return {index: value for index, value in enumerate(found) if index not in self._skipped}

    def reorder(self, rows: Array) -> None:
        self._rows = rows if self._rows is None else self._rows[rows]

    def crop(self, tokens: int) -> None:
        if tokens:
            self._arrays = [array[:, :, :-tokens] for array in self._arrays]

    def arrays(self) -> list[Array]:
        if self._rows is not None:
            rows, self._rows = self._rows, None
            if not np.array_equal(rows, np.arange(len(self._arrays[0]))):
                self._arrays = [array[rows] for array in self._arrays]
        self._arrays = [np.ascontiguousarray(array) for array in self._arrays]
        return self._arrays

    def load(self, arrays: Sequence[Array]) -> None:
        self._arrays, self._rows = list(arrays), None
