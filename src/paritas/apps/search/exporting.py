# SPDX-License-Identifier: Apache-2.0
"""What is in an index as a file of another kind, written beside and moved into place."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from paritas import leftovers
from paritas.apps.search.store import Index
from paritas.errors import InputError

_PASSAGES = """
select p.id, d.key, d.columns, substr(d.text, p.start + 1, p.stop - p.start), p.vector
from passages p join documents d on d.id = p.document order by p.id
"""


def exported(place: Path, out: Path, *, vectors: bool = False) -> int:
    """Write the passages of an index to `out`, and return how many. vectors: with theirs, as lists.

    out: .jsonl, an object a passage with `id`, `key`, `columns` and `text`; or .npz, the arrays `ids` int64 [passages]
    and `vectors` float32 [passages, dimensions]. Raises `InputError` for another kind, and for a full disk.
    """
    if out.suffix not in (".jsonl", ".npz"):
        raise InputError(f"{out} is of no kind that is written: .jsonl or .npz.")
    made = leftovers.beside(out, "tmp")
    count = 0
    try:
        with Index(place) as index:
            if out.suffix == ".npz":
                rows = index.rows("select id, vector from passages order by id")
                matrix, count = index.matrix(row[1] for row in rows), len(rows)
                with made.open("wb") as binary:
                    np.savez(binary, ids=np.array([row[0] for row in rows], np.int64), vectors=matrix)
            else:
                with made.open("w", encoding="utf-8") as file:
                    for number, key, columns, text, vector in index.each(_PASSAGES):
                        row = {"id": number, "key": key, "columns": json.loads(columns), "text": text}
                        if vectors:
                            row["vector"] = index.matrix([vector])[0].astype(float).round(6).tolist()
                        file.write(json.dumps(row, ensure_ascii=False) + "\n")
                        count += 1
        os.replace(made, out)
    except OSError as error:
        made.unlink(missing_ok=True)
        raise InputError(f"{out} cannot be written: {error.strerror or error}.") from error
    return count
