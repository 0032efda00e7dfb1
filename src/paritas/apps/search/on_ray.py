# SPDX-License-Identifier: Apache-2.0
"""Passages are embedded on the machines of a Ray cluster; this process reads the texts, and alone writes the index.

All machines have Paritas, and find the model under the same name: that it is the same one is checked there.
"""

from __future__ import annotations

import itertools
import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from paritas import clusters
from paritas.apps.search.embedding import Embedder, Identity
from paritas.apps.search.indexing import Batch, texts_of
from paritas.apps.search.store import refuse_other
from paritas.errors import InputError, ParitasError, first_line

#: So many batches are given to the cluster at a time: for each such round its machines load the model once.
ROUND = 512


class Embeds:
    """The model on one machine: Ray Data starts it there, and again elsewhere if that machine is lost."""

    def __init__(self, make: Callable[[], Embedder], identity: Identity) -> None:
        # What is wrong travels as a line: of what is raised in a constructor Ray tells only that a machine was lost.
        self._wrong = ""
        self._model: Embedder | None = None
        try:
            self._model = make()
            refuse_other("The index", identity, self._model.identity)
        except ParitasError as error:
            self._wrong = f"{socket.gethostname()}: {first_line(error)}"

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        found = [self._embedded(list(map(str, texts))) for texts in rows["texts"]]
        return {"number": rows["number"], "vectors": found, "wrong": [self._wrong] * len(found)}

    def _embedded(self, texts: list[str]) -> bytes:
        if self._wrong or self._model is None:
            return b""
        return np.asarray(self._model.embed(texts), "<f4").tobytes()


def embedded(
    batches: Iterable[Batch], make: Callable[[], Embedder], identity: Identity, address: str, workers: int
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Batches with the vectors of their passages, float32 [passages, dimensions], as they are ready: in any order.

    make: loads the model, on each machine. address: of a cluster, as `ray.init` takes it, or "local". workers: how many
    models there are at most, each with a core. Raises `InputError` where there is no cluster, or a machine fails.
    """
    ray: Any = clusters.connected(address, "paritas search index --ray")
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # the command's bar shows how far it is
    given = iter(batches)
    while part := list(itertools.islice(given, ROUND)):
        rows = [{"number": number, "texts": texts_of(batch)} for number, batch in enumerate(part)]
        made = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Embeds,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(workers, len(rows))),
            fn_constructor_args=(make, identity),
            num_cpus=1,
        )
        left = set(range(len(part)))
        try:
            for row in made.iter_rows():
                if row["wrong"]:
                    raise InputError(f"--ray {address}: {row['wrong']}")
                number = int(row["number"])
                left.remove(number)
                yield part[number], np.frombuffer(row["vectors"], "<f4").reshape(-1, identity.dimensions)
        except ray.exceptions.RayError as error:
            raise InputError(
                f"--ray {address}: a machine could not embed: {_last_line(error)}. What was confirmed is in the index: "
                "run the same again."
            ) from error
        if left:
            raise InputError(f"--ray {address}: {len(left)} batches did not come back: run the same again.")


def _last_line(error: BaseException) -> str:
    """What was raised on the machine: the end of what Ray quotes of its traceback."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
