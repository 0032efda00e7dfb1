# SPDX-License-Identifier: Apache-2.0
"""What a model that generates text is captured with: a call that goes on with the cache of an earlier one."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch

from paritas.capture.export import is_transformers
from paritas.errors import InputsNeeded, first_line

#: By optimum's name: inputs are the new tokens, outputs their logits, and a cache is between two calls.
WITH_PAST = "text-generation-with-past"

#: One call on all tokens, without a cache.
WITHOUT_PAST = "text-generation"

#: Tokens that are new and tokens that were seen: sizes that no graph can take for a constant, as it could 0 and 1.
NEW, PAST = 3, 4

#: In how many numbers a position is, where a model counts in time and space: position_ids int64 [AXES, batch, tokens].
AXES = 3

#: What forward calls its cache.
CACHES = ("past_key_values", "cache_params")

#: Layers of a cache that are states of a fixed size, with keys and values beside them or not.
STATEFUL = ("LinearAttentionLayer", "LinearAttentionAndFullAttentionLayer", "DummyLayer")


def can_generate(model: Any) -> bool:
    """Whether it writes text after a text, and goes on with keys and values of all tokens that it has seen."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    named = type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    return is_transformers(model) and named and not model.config.is_encoder_decoder and bool(model.can_generate())


def default_task(model: Any) -> str:
    """What a model is for, where an engine keeps a cache inside a model; "" for what is one call."""
    # A model that sees images is not for texts alone.
    return (
        WITH_PAST if can_generate(model) and "pixel_values" not in inspect.signature(model.forward).parameters else ""
    )


def going_on(model: Any) -> dict[str, Any]:
    """The arguments of a call on `NEW` tokens after `PAST`, two rows of seeded ones: with all that a loop hands on.

    input_ids int64 [2, NEW], attention_mask int64 [2, PAST + NEW], position_ids int64 [2, NEW] where forward takes
    them, past_key_values as the model made it for the first tokens. Raises `InputsNeeded` for a model of another kind.
    """
    if not can_generate(model):
        raise InputsNeeded(f"{type(model).__name__} does not write text after a text: it has no {WITH_PAST}.")
    return after_tokens(model)


def seeded_tokens(vocabulary: int) -> torch.Tensor:
    """int64 [2, PAST + NEW], without the first ones, which are signs of begin and end."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(min(3, vocabulary - 1), vocabulary, (2, PAST + NEW), generator=generator)


def after_tokens(model: Any, *, embedded: bool = False) -> dict[str, Any]:
    """As `going_on`, of a model that writes. embedded: inputs_embeds float [2, NEW, width] instead of the tokens."""
    from transformers.cache_utils import DynamicCache, LinearAttentionCacheLayerMixin

    known = inspect.signature(model.forward).parameters
    name = next((name for name in CACHES if name in known), CACHES[0])
    ids = seeded_tokens(model.config.get_text_config().vocab_size)
    mask = torch.ones_like(ids)
    # The model's own would keep a window of the tokens only.
    own = DynamicCache(config=model.config)
    empty = own if any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in own.layers) else DynamicCache()
    begun = {"input_ids": ids[:, :PAST], "attention_mask": mask[:, :PAST], "use_cache": True, name: empty}
    try:
        with torch.no_grad():
            cache = getattr(model(**begun), name, None)
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        why = first_line(error).rstrip(".")
        raise InputsNeeded(
            f"{type(model).__name__} does not go on with what a cache holds: {why}.\n"
            f"Generate with paritas.transformers, or port one call of it: task={WITHOUT_PAST!r}."
        ) from error
    kinds = {type(layer).__name__ for layer in getattr(cache, "layers", ())}
    if type(cache) is not DynamicCache or not kinds <= {"DynamicLayer", *STATEFUL}:
        kind = f"a {type(cache).__name__} of {', '.join(sorted(kinds))}" if cache is not None else "no cache"
        raise InputsNeeded(
            f"{type(model).__name__} remembers in {kind}, which no port keeps.\nGenerate with paritas.transformers, or "
            f"port one call of it: task={WITHOUT_PAST!r}."
        )
    given = {"input_ids": ids[:, PAST:], "attention_mask": mask, name: cache}
    if not kinds - {"LinearAttentionLayer"}:
        given["attention_mask"] = mask[:, PAST:]  # nothing is as long as what was seen
    if not getattr(model.config, "use_cache", False):
        given["use_cache"] = True
    if "position_ids" in known:
        positions = torch.arange(PAST, PAST + NEW).repeat(2, 1)
        # Unlike each other, as only the places of an image's tokens are.
        apart = torch.arange(AXES).reshape(AXES, 1, 1)
        given["position_ids"] = positions + apart if counts_in_space(model) else positions
    if embedded:
        with torch.no_grad():
            given["inputs_embeds"] = model.get_input_embeddings()(given.pop("input_ids"))
    if forgets(model, given):
        _fill(cache, 0.0)
    return given


def counts_in_space(model: Any) -> bool:
    """Whether a token's position is three numbers: when, how far down and how far to the right it is in an image."""
    return callable(getattr(getattr(model, "base_model", None), "get_rope_index", None))


def forgets(model: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether a call does not depend on the states of its cache, since the original begins anew where several tokens
    follow."""
    if not any(_states(arguments.get(name)) for name in CACHES):
        return False

    def logits(value: float) -> torch.Tensor:
        own = copy.deepcopy(dict(arguments))
        for name in CACHES:
            _fill(own.get(name), value)
        with torch.no_grad():
            found: torch.Tensor = model(**own).logits
        return found

    return torch.equal(logits(0.0), logits(1.0))


def _states(cache: Any) -> list[torch.Tensor]:
    layers = [getattr(layer, "recurrent_states", {}) for layer in getattr(cache, "layers", ())]
    return [state for states in layers for state in states.values() if state is not None]


def _fill(cache: Any, value: float) -> None:
    for state in _states(cache):
        state.fill_(value)
