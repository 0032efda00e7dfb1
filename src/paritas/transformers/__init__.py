# SPDX-License-Identifier: Apache-2.0
"""Transformers with its networks on an engine: change the import, and nothing else.

    from paritas.transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen3-0.6B", engine="openvino")
    model.generate(**tokenizer("Hello", return_tensors="pt"), max_new_tokens=20)

Every model class of transformers is here under its own name, derived from the original: its networks run on
`engine=` (by default `paritas.default_engine()`), as ports that are made when they are first called and kept for the
next start. All else, tokenizers, configurations, generation, is the original's own object.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from paritas.extras import require

require("port", "paritas.transformers")

import transformers as _transformers  # noqa: E402

import paritas.transformers.library  # noqa: E402, F401 - registers it
from paritas.transformers.tokens import teach_tokenizers  # noqa: E402

teach_tokenizers()

__all__ = ["pipeline", "port_model"]


def port_model(model: Any, engine: str | None = None, **options: Any) -> Any:
    """A `PreTrainedModel` in memory, from now on on the engine: the same object.

    options: `mode`, `target`, `engine_device`, as `from_pretrained` takes them.
    """
    from paritas.transformers.models import attach

    return attach(model, engine=engine, **options)


def __getattr__(name: str) -> Any:
    if name == "pipeline":
        from paritas.transformers.pipelines import pipeline

        return pipeline
    if name in ("Trainer", "Seq2SeqTrainer"):
        from paritas.transformers import training

        return getattr(training, name)
    from paritas.transformers.optimum import auto_name

    # Not every short name in capitals is a class of optimum's: CLIPModel, T5Model.
    as_in_transformers, engine = ("", "") if hasattr(_transformers, name) else auto_name(name)
    try:
        original = getattr(_transformers, as_in_transformers or name)
    except AttributeError as error:
        raise AttributeError(f"module 'paritas.transformers' has no attribute {name!r}: {error}") from None
    if engine:
        from paritas.transformers.auto import ported_auto_class

        return ported_auto_class(original, engine)
    cls: Any = original
    return _ours(cls) if inspect.isclass(original) else original


@functools.cache
def _ours(original: Any) -> Any:
    from transformers import PreTrainedModel
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

    if issubclass(original, PreTrainedModel):
        import paritas.transformers.directory  # noqa: F401 - which opens ports
        from paritas.transformers.models import ported_class

        return ported_class(original)
    if issubclass(original, _BaseAutoModelClass):
        from paritas.transformers.auto import ported_auto_class

        return ported_auto_class(original)
    return original


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_transformers), "pipeline"})
