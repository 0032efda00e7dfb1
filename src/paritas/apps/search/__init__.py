# SPDX-License-Identifier: Apache-2.0
"""Search by meaning: texts are cut into passages, embedded by a model on an engine, and kept in a directory.

from paritas.apps.search import Embedder, Searcher, index

index("songs.idx", ["songs.csv"], Embedder(), text="lyrics")
Searcher("songs.idx").search("Running wild and free", top=9)
"""

from paritas.apps.search.embedding import Embedder
from paritas.apps.search.indexing import delete, index
from paritas.apps.search.searching import Searcher

__all__ = ["Embedder", "Searcher", "delete", "index"]
