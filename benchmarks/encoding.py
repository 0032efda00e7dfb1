# SPDX-License-Identifier: Apache-2.0
"""How long does it take to embed ten thousand verses of mixed length? Each contender is a process; they take turns.

    python benchmarks/encoding.py [--verses 10000] [--rounds 3] [--peer ~/peer/bin/python] [--publish]
    python benchmarks/encoding.py --verses 200 --rounds 1       # proves that all of it runs

all-MiniLM-L6-v2 in all of them, `encode` with a batch of 32. `torch` is sentence-transformers as it is; `--peer` names
the interpreter of an environment with optimum-intel, whose `backend="openvino"` is another contender. Beside the time:
how far the embeddings are from PyTorch's, and the most memory. The bars: OpenVINO 1.5x in float32 and 2.5x in bfloat16,
and no slower than optimum-intel.
"""

from __future__ import annotations

import functools
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contender import answer, peak

#: Contender -> what its class is given.
CONTENDERS: dict[str, dict[str, Any]] = {
    "torch": {},
    "openvino": {"engine": "openvino"},
    "openvino bf16": {"engine": "openvino", "model_kwargs": {"dtype": "bfloat16"}},
    "openvino int8": {"engine": "openvino", "weights": "int8"},
    "optimum-intel": {"backend": "openvino"},
    "optimum-intel fp32": {
        "backend": "openvino",
        "model_kwargs": {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}},
    },
}

#: Of these the first computes in what OpenVINO chooses: bfloat16, where the processor has it.
PEERS = ("optimum-intel", "optimum-intel fp32")

#: So many embeddings are compared.
COMPARED = 200


def verses(count: int) -> list[str]:
    """Verses of the songs that ship: a line, a verse, or several of them, so that lengths are from 5 to 250 tokens."""
    from paritas.apps.search.songs import songs

    rng = random.Random(0)
    known = [verse for song in songs() for verse in song.lyrics.split("\n\n")]
    found = []
    for _ in range(count):
        length = rng.choice((0, 0, 1, 1, 1, 1, 2, 3, 6))
        verse = rng.choice(known)
        found.append("\n".join(rng.sample(known, length)) if length > 1 else verse if length else verse.split("\n")[0])
    return found


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:  # also in the peer's interpreter, which has no Paritas
        return answer(functools.partial(prepared, *sys.argv[2:4]))
    from turns import parser, take_turns

    found = parser(__doc__, [name for name in CONTENDERS if name not in PEERS], 3)
    found.add_argument("--verses", type=int, default=10_000)
    found.add_argument("--peer", metavar="PYTHON", help="of an environment with optimum-intel")
    found.add_argument("--publish", action="store_true")
    given = found.parse_args()
    import json

    from paritas.capture.source import minilm_directory

    names = [*given.contenders, *(PEERS if given.peer else ())]
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "verses.json").write_text(json.dumps(verses(given.verses)))
        os.environ["PARITAS_BENCHMARKED"] = str(minilm_directory())
        asked, warm = {"warm": False}, {"warm": True}
        peers = dict.fromkeys(PEERS, given.peer) if given.peer else {}
        figures = take_turns(__file__, names, directory, given.rounds, asked, warm=warm, peers=peers)
    rows = _rows(figures, given.verses)
    _print(rows, given.verses)
    if given.publish:
        import results

        results.write("encoding", {"verses": given.verses, "rows": rows})
    return 0


# --- in the process of a contender -----------------------------------------------------------------------------


def prepared(name: str, directory: str) -> Callable[[Any], Any]:
    import json

    import torch

    options = CONTENDERS[name]
    if "engine" in options:
        from paritas.sentence_transformers import SentenceTransformer
    else:
        from sentence_transformers import SentenceTransformer
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = SentenceTransformer(os.environ["PARITAS_BENCHMARKED"], device="cpu", **options)
    texts = json.loads(Path(directory, "verses.json").read_text())

    def work(what: dict[str, Any]) -> dict[str, Any]:
        given = texts[: max(len(texts) // 10, 64)] if what["warm"] else texts
        started = time.perf_counter()
        embeddings = model.encode(given, show_progress_bar=False)
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "vectors": embeddings[:COMPARED].astype(float).tolist(), "peak": peak()}

    return work


# --- in this one -----------------------------------------------------------------------------------------------


def _rows(figures: dict[str, list[Any]], count: int) -> dict[str, Any]:
    import numpy as np

    first = next(iter(figures.values()))
    reference, baseline = np.array(first[0]["vectors"]), statistics.median(one["seconds"] for one in first)
    rows = {}
    for name, rounds in figures.items():
        seconds = statistics.median(one["seconds"] for one in rounds)
        vectors = np.array(rounds[0]["vectors"])
        rows[name] = {
            "seconds": seconds,
            "rate": count / seconds,
            "ratio": baseline / seconds,
            "largest": float(np.abs(vectors - reference).max()),
            "cosine": float((vectors * reference).sum(axis=1).min()),
            "peak": max(one["peak"] for one in rounds),
            "all": [round(one["seconds"], 3) for one in rounds],
        }
    return rows


def _print(rows: dict[str, Any], count: int) -> None:
    import results

    print(f"{count} verses, all-MiniLM-L6-v2, batch 32; {results.machine()}")
    for name, row in rows.items():
        print(
            f"{name:20}{row['rate']:8.0f} verses/s {row['ratio']:6.2f}x   largest difference {row['largest']:.1e}   "
            f"least cosine {row['cosine']:.6f}   {row['peak'] >> 20} MiB   {row['all']}"
        )


if __name__ == "__main__":
    sys.exit(main())
