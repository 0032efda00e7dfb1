# SPDX-License-Identifier: Apache-2.0
"""What is in an index as a file of another kind, written beside and moved into place."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from paritas import leftovers
from paritas.apps.search import places
from paritas.apps.search.store import Place
from paritas.errors import InputError


def exported(place: Place, out: Path, *, vectors: bool = False) -> int:
    """Write the passages of an index to `out`, and return how many. vectors: with theirs, as lists.

    out: .jsonl, an object a passage with `id`, `key`, `columns` and `text`; or .npz, the arrays `ids` int64 [passages]
    and `vectors` float32 [passages, dimensions]. Raises `InputError` for another kind, and for a full disk.
    """
    if out.suffix not in (".jsonl", ".npz"):
        raise InputError(f"{out} is of no kind that is written: .jsonl or .npz.")
    made = leftovers.beside(out, "tmp")
    count = 0
    try:
        with places.opened(place) as index:
            if out.suffix == ".npz":
                parts = [*index.matrices()]
                numbers = np.concatenate([np.empty(0, np.int64), *(one for one, _ in parts)])
                matrix = np.concatenate([np.empty((0, index.identity.dimensions), np.float32), *(m for _, m in parts)])
                count = len(numbers)
                with made.open("wb") as binary:
                    np.savez(binary, ids=numbers, vectors=matrix)
            else:
                with made.open("w", encoding="utf-8") as file:
                    for one in index.passages():
                        row = {"id": one.number, "key": one.key, "columns": one.columns, "text": one.text}
                        if vectors:
                            row["vector"] = one.vector.astype(float).round(6).tolist()
                        file.write(json.dumps(row, ensure_ascii=False) + "\n")
                        count += 1
        os.replace(made, out)
    except OSError as error:
        made.unlink(missing_ok=True)
        raise InputError(f"{out} cannot be written: {error.strerror or error}.") from error
    return count
