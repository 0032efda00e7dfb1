# SPDX-License-Identifier: Apache-2.0
"""sentence-transformers with its models on an engine: change the import, and nothing else.

    from paritas.sentence_transformers import SentenceTransformer

    model = SentenceTransformer("all-MiniLM-L6-v2", engine="openvino")
    embeddings = model.encode(["It is raining.", "The sun is out."])
    model.similarity(embeddings, embeddings)

`SentenceTransformer`, `CrossEncoder`, `SparseEncoder` and `MultiVectorEncoder` are here under their own names, derived
from the originals: the modules of a model, from the transformer to pooling, dense layers and normalisation, are one
graph, computed by `engine=` (by default `paritas.default_engine()`). All else, tokenizers, prompts, batches,
similarities, quantised embeddings, evaluators, losses, saving, is the original's own code.
"""

from __future__ import annotations

import inspect
from typing import Any

from paritas.extras import require

require("port", "paritas.sentence_transformers")
require("sentence", "paritas.sentence_transformers")

import sentence_transformers as _sentence_transformers  # noqa: E402

import paritas.sentence_transformers.library  # noqa: E402, F401 - registers it

__all__ = ["port_model"]


def port_model(model: Any, engine: str | None = None, **options: Any) -> Any:
    """A model of sentence-transformers in memory, from now on on the engine: the same object.

    options: `mode`, `target`, `weights`, `engine_device`, `ov_config`, as the classes take them here. Raises
    `InputError` for anything else than a model of sentence-transformers.
    """
    from paritas.sentence_transformers.models import attach

    return attach(model, engine=engine, **options)


def __getattr__(name: str) -> Any:
    try:
        original: Any = getattr(_sentence_transformers, name)
    except AttributeError as error:
        raise AttributeError(f"module 'paritas.sentence_transformers' has no attribute {name!r}: {error}") from None
    if inspect.isclass(original):
        from paritas.sentence_transformers.models import is_model, ported_class

        if is_model(original):
            return ported_class(original)
    return original


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_sentence_transformers)})
