# SPDX-License-Identifier: Apache-2.0
"""A model with an encoder and a decoder, as two networks: each reads what optimum-intel's files of that name read.

The decoder goes on with the keys and values of its own tokens. Those of the encoder's it computes, and returns.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from paritas.capture.component import Component
from paritas.capture.export import is_transformers
from paritas.capture.generation import PAST, seeded_tokens
from paritas.capture.inputs import example_inputs
from paritas.errors import InputsNeeded, first_line

_MASK = "attention_mask"

#: By optimum's name -> the main inputs of models for it.
_MAIN_INPUTS = {
    "text2text-generation-with-past": ("input_ids",),
    "automatic-speech-recognition-with-past": ("input_features", "input_values"),
    "image-to-text-with-past": ("pixel_values", "flattened_patches"),
}


def task_of(model: Any) -> str:
    """The task for which a model is an encoder with a decoder; "" if it is none."""
    if not is_transformers(model) or not model.config.is_encoder_decoder or not model.can_generate():
        return ""
    known = inspect.signature(model.forward).parameters
    if not {"encoder_outputs", "decoder_input_ids", "past_key_values"} <= set(known):
        return ""
    main = model.main_input_name
    return next((task for task, names in _MAIN_INPUTS.items() if main in names and main in known), "")


def taken_apart(model: Any, task: str) -> dict[str, Component]:
    """{"encoder": ..., "decoder": ...}. Raises `InputsNeeded` for a model that is not for that task."""
    if task_of(model) != task:
        raise InputsNeeded(f"{type(model).__name__} has no {task}: it has no encoder and decoder for that.")
    encoder = model.get_encoder()
    return {
        "encoder": Component(encoder, lambda: _encoder_inputs(model, encoder)),
        "decoder": Component(decoder(model), lambda: _going_on(model)),
    }


def _going_on(model: Any) -> dict[str, Any]:
    """As `going_on`. Raises `InputsNeeded` for a model that cannot be called so, in whichever way it says that."""
    try:
        return going_on(model)
    except InputsNeeded:
        raise
    except Exception as error:
        reason = first_line(error)
        raise InputsNeeded(f"{type(model).__name__} is not called as a decoder with a cache: {reason}") from error


TASKS: Mapping[str, Callable[[Any], Mapping[str, Component]]] = {
    task: functools.partial(taken_apart, task=task) for task in _MAIN_INPUTS
}


def _encoder_inputs(model: Any, encoder: Any) -> dict[str, Any]:
    """As generation loops hand them on: what the encoder takes of the model's own, and a mask if it looks at one."""
    known = inspect.signature(encoder.forward).parameters
    if is_transformers(encoder):
        given = dict(example_inputs(encoder))
    else:
        given = {name: value for name, value in example_inputs(model).items() if name in known}
    main = given.get(model.main_input_name)
    if _MASK not in known or _MASK in given or main is None:
        return given
    masks = torch.ones(2, *main.shape[:2], dtype=torch.int64)
    masks[1, :, main.shape[1] // 2 :] = 0
    try:
        with torch.no_grad():
            whole, half = (encoder(**given, **{_MASK: mask})[0] for mask in masks)
    except (AssertionError, LookupError, RuntimeError, TypeError, ValueError):  # its mask has another form
        return given
    return given if torch.equal(whole, half) else {**given, _MASK: masks[0]}


def decoder(model: Any) -> Any:
    """`model`, called as a decoder is: its own forward, given what the encoder has returned.

    forward(input_ids int64 [batch, new], encoder_hidden_states [batch, tokens, width], encoder_attention_mask
    [batch, tokens] as the encoder returned it, else as the encoder was given it, past_key_values). Weights, modules and
    their names are the model's own.
    """
    from transformers.modeling_outputs import BaseModelOutput

    original: Any = type(model)

    class Decoder(original):
        def forward(
            self,
            input_ids: Any = None,
            encoder_hidden_states: Any = None,
            encoder_attention_mask: Any = None,
            past_key_values: Any = None,
        ) -> Any:
            given = {} if encoder_attention_mask is None else {_MASK: encoder_attention_mask}
            encoded: Any = BaseModelOutput(last_hidden_state=encoder_hidden_states)
            encoded.attention_mask = encoder_attention_mask  # where an encoder returns the mask that a decoder reads
            out = super().forward(
                decoder_input_ids=input_ids,
                encoder_outputs=encoded,
                past_key_values=past_key_values,
                use_cache=True,
                return_dict=True,
                **given,
            )
            return type(out)(logits=out.logits, past_key_values=out.past_key_values)

    Decoder.__name__, Decoder.__qualname__ = original.__name__, original.__qualname__
    Decoder.__module__ = original.__module__
    made = Decoder.__new__(Decoder)
    made.__dict__ = model.__dict__
    return made


def going_on(model: Any) -> dict[str, Any]:
    """The arguments of a call of `decoder(model)` on `NEW` tokens after `PAST`, for two rows of seeded inputs."""
    from transformers.cache_utils import DynamicCache, EncoderDecoderCache

    one = decoder(model)
    ids = seeded_tokens(model.config.get_text_config(decoder=True).vocab_size)
    encoder = model.get_encoder()
    inputs = _encoder_inputs(model, encoder)
    with torch.no_grad():
        encoded = encoder(**inputs)
        hidden = encoded[0]
        given: dict[str, Any] = {"encoder_hidden_states": hidden}

        def first(mask: torch.Tensor | None = None) -> Any:
            empty = EncoderDecoderCache(DynamicCache(), DynamicCache())
            return one(ids[:, :PAST], hidden, mask, empty)

        made = first().past_key_values
        if _MASK in inspect.signature(model.forward).parameters:
            of_input = inputs[_MASK] if _MASK in inputs else torch.ones(hidden.shape[:2], dtype=torch.int64)
            returned = getattr(encoded, _MASK, None)
            ones = of_input if returned is None else returned
            other = ones.clone()
            other[:, ones.shape[1] // 2 :] = 0
            # Whisper's forward takes a mask, and its decoder looks at all that the encoder has heard.
            if not torch.equal(first(ones).logits, first(other).logits):
                given["encoder_attention_mask"] = ones
    own = getattr(made, "self_attention_cache", None)
    if type(own) is not DynamicCache or not all(type(layer).__name__ == "DynamicLayer" for layer in own.layers):
        raise InputsNeeded(
            f"{type(model).__name__} remembers in a {type(made).__name__} of "
            f"{type(own).__name__}, which no port keeps. Generate with paritas.transformers."
        )
    return {"input_ids": ids[:, PAST:], **given, "past_key_values": EncoderDecoderCache(own, DynamicCache())}
