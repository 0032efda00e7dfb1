# SPDX-License-Identifier: Apache-2.0
"""What a model is captured with: example inputs, which dimensions may vary, and which inputs may be left out."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from paritas.arguments import invoke, nest, take_apart
from paritas.caches import is_state
from paritas.capture.export import is_transformers, prepare
from paritas.capture.forward import Call
from paritas.capture.state import Answer, does_not_run
from paritas.errors import InputsNeeded
from paritas.program import TensorSpec
from paritas.pytree import describe_output

BATCH, SEQUENCE, TARGET = 2, 16, 7  # unlike each other, and none of them 1, which torch.export would freeze


def bind(model: torch.nn.Module, inputs: Any) -> dict[str, Any]:
    """`inputs` by name of forward's parameters: a mapping as it is, a tensor or a sequence in forward's order.

    Arrays of NumPy become tensors. Raises `InputsNeeded` where they are not forward's arguments.
    """
    signature = inspect.signature(model.forward)
    parameters = signature.parameters.values()
    name = f"{type(model).__name__}.forward"
    if isinstance(inputs, Mapping):
        given = dict(inputs)
        unknown = sorted(set(given) - set(signature.parameters))
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
            raise InputsNeeded(
                f"{name} has no argument {', '.join(unknown)}. It takes: {', '.join(signature.parameters)}."
            )
    else:
        values = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        try:
            given = dict(signature.bind_partial(*values).arguments)
        except TypeError as error:
            raise InputsNeeded(
                f"{name} takes {', '.join(signature.parameters)}, not {len(values)} inputs by position ({error}). "
                "Pass them by name: inputs={'name': tensor}"
            ) from None
    missing = [needed for needed in required(model) if needed not in given]
    if missing and not is_transformers(model):  # whose exporter may compute them from the others
        raise InputsNeeded(f"{name} needs {', '.join(missing)} as well. {_how_to_give([*given, *missing], missing)}")
    return {key: _tensors(value) for key, value in given.items()}


def required(model: torch.nn.Module) -> list[str]:
    """forward's parameters that have no default."""
    parameters = inspect.signature(model.forward).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]


def _how_to_give(names: Sequence[str], missing: Sequence[str] | None = None) -> str:
    """What to write for inputs of these names, in Python and on the command line. missing: those to add there."""
    shown = ", ".join(f"{name!r}: tensor" for name in names or ["x"])
    options = " ".join(f"--input {name}=SHAPE[:DTYPE]" for name in (names if missing is None else missing) or ["x"])
    return f"Pass an example: paritas.port(model, inputs={{{shown}}}), or on the command line {options}"


def _tensors(value: Any) -> Any:
    """NumPy's arrays as tensors, and its scalars as numbers of Python."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (tuple, list):
        return type(value)(map(_tensors, value))
    return {key: _tensors(item) for key, item in value.items()} if type(value) is dict else value


def example_inputs(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Seeded inputs for a transformers model, as its config describes them: ids, masks, pixels, audio features.

    int64 ids [2, 16] below the vocabulary's size, float32 pixels [2, channels, height, width], log-mel
    features [2, bins, frames] or [2, frames, bins], waveforms [2, 16000]. Raises `InputsNeeded` where the config does
    not say.
    """
    if not is_transformers(model):
        if any(cls.__module__.startswith("sentence_transformers.") for cls in type(model).__mro__):
            raise InputsNeeded(
                f"A {type(model).__name__} is several modules, which it runs itself. Put its transformer on an engine:"
                "   paritas.transformers.port_model(model[0].auto_model)\nOr port the directory that it was loaded "
                "from, which then opens in sentence-transformers:   paritas.port(DIRECTORY)"
            )
        raise InputsNeeded(
            f"{type(model).__name__} is not a transformers model, so its inputs are unknown. "
            + _how_to_give(required(model))
        )
    generator = torch.Generator().manual_seed(0)
    config: Any = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    vision = getattr(config, "vision_config", config)
    known = inspect.signature(model.forward).parameters
    found: dict[str, torch.Tensor] = {}

    def ids(length: int, vocabulary: int) -> torch.Tensor:
        return torch.randint(min(3, vocabulary - 1), vocabulary, (BATCH, length), generator=generator)

    def takes(name: str) -> bool:
        return name in known

    vocabulary = getattr(text, "vocab_size", None)
    if takes("input_ids") and vocabulary:
        limit = int(getattr(text, "max_position_embeddings", 0) or SEQUENCE)
        found["input_ids"] = ids(min(SEQUENCE, limit), vocabulary)
        if takes("attention_mask"):
            found["attention_mask"] = torch.ones_like(found["input_ids"])
        if takes("token_type_ids") and getattr(text, "type_vocab_size", None):
            found["token_type_ids"] = torch.zeros_like(found["input_ids"])
    if takes("pixel_values"):
        size = getattr(vision, "image_size", None) or 224
        height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
        channels = getattr(vision, "num_channels", None) or 3
        found["pixel_values"] = torch.randn((BATCH, channels, height, width), generator=generator)
    if takes("input_features") and getattr(config, "num_mel_bins", None):
        frames = 2 * (getattr(config, "max_source_positions", None) or 750)
        found["input_features"] = torch.randn((BATCH, config.num_mel_bins, frames), generator=generator)
    elif takes("input_features") and (width := getattr(config, "input_feat_per_channel", None)):
        # Frames first, which convolutions make fewer.
        width *= getattr(config, "input_channels", None) or 1
        found["input_features"] = torch.randn((BATCH, 8 * SEQUENCE, width), generator=generator)
    if takes("input_values"):
        found["input_values"] = torch.randn((BATCH, 16000), generator=generator)
    if takes("decoder_input_ids") and getattr(config, "is_encoder_decoder", False) and vocabulary:
        found["decoder_input_ids"] = ids(TARGET, vocabulary)

    unknown = [name for name in required(model) if name not in found]
    if unknown or not found:
        raise InputsNeeded(
            f"{type(model).__name__}.forward needs {', '.join(unknown) or 'inputs'}, which its config does not "
            f"describe. {_how_to_give(unknown or ['input_ids'])}"
        )
    return found


def call_of(model: torch.nn.Module, given: Mapping[str, Any], *, widen: bool) -> Call:
    """The tensors and the fixed arguments of a call, with what has to be computed in advance.

    widen: repeat examples of batch 1, where the model takes that. Raises `CaptureError` for other arguments.
    """
    tensors, fixed, nesting = take_apart(given)
    # Copies: of a tensor that is given twice torch.export would know one, and what forward writes is its caller's.
    # In order, as an engine gets them.
    tensors = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    call = Call(tensors, fixed | _without_cache(model, nest(tensors, nesting) | fixed), nesting)
    if widen:
        widened, repeated = widen_batch(call.tensors)
        if repeated and _runs(model, call.arguments(widened)):
            call = dataclasses.replace(call, tensors=widened)
    arguments = call.arguments()
    try:
        more = prepare(model, arguments)
    except Exception as error:
        raise does_not_run(model, arguments, error) from error
    added = {name for name in more if arguments.get(name) is None and isinstance(more[name], torch.Tensor)}
    tensors, fixed, nesting = take_apart(more)
    return Call(tensors, fixed, nesting, tuple(name for name in tensors if name in added))


def _without_cache(model: torch.nn.Module, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """No cache is returned unless it is asked for: whoever generates text ports the step with a cache."""
    caches = ("past_key_values", "past_buckets_states")
    if not is_transformers(model) or not getattr(model.config, "use_cache", False):
        return {}
    if any(arguments.get(name) is not None for name in ("use_cache", *caches)):
        return {}
    try:
        with torch.no_grad():
            out = invoke(model, arguments)
    except Exception as error:
        raise does_not_run(model, arguments, error) from error
    found = isinstance(out, Mapping) and any(out.get(name) is not None for name in caches)
    return {"use_cache": False} if found else {}


def _runs(model: torch.nn.Module, arguments: Mapping[str, Any]) -> bool:
    try:
        with torch.no_grad():
            invoke(model, arguments)
    except Exception:  # noqa: BLE001 - a model for batch 1 only says so in many ways
        return False
    return True


def widen_batch(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Repeat examples whose first dimension is 1, since torch.export freezes every dimension of size 1.

    Returns the inputs unchanged, and False, unless each tensor's first dimension is 1.
    """
    tensors = [v for v in inputs.values() if isinstance(v, torch.Tensor)]
    if not tensors or any(t.dim() == 0 or t.shape[0] != 1 for t in tensors):
        return dict(inputs), False
    return {
        name: torch.cat([value] * BATCH) if isinstance(value, torch.Tensor) else value for name, value in inputs.items()
    }, True


def froze_what_was_repeated(given: Mapping[str, Any], specs: Sequence[TensorSpec]) -> bool:
    """Whether a batch of 1 among the examples was repeated in vain: the port would refuse its own example."""
    tensors = take_apart(given)[0]
    return any(
        spec.dims[:1] == (BATCH,) and spec.name in tensors and tensors[spec.name].shape[0] == 1 for spec in specs
    )


def signature(model: torch.nn.Module, chosen: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """forward's parameters as `Manifest.signature` has them. chosen: what a capture decides where nobody says."""
    kinds = {"POSITIONAL_ONLY": "position", "POSITIONAL_OR_KEYWORD": "position", "VAR_POSITIONAL": "rest"}
    found: dict[str, dict[str, Any]] = {}
    for name, parameter in inspect.signature(model.forward).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        about: dict[str, Any] = {"by": kinds.get(parameter.kind.name, "name")}
        if _is_plain(parameter.default):
            about["default"] = parameter.default
        found[name] = about
    for name, value in chosen.items():
        found[name] = {**found.get(name, {"by": "name"}), "default": value}
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return type(value) in (tuple, list) and all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def dynamic_shapes(inputs: Mapping[str, Any], dynamic: bool | Mapping[str, Mapping[int, Any]]) -> dict[str, Any] | None:
    """What `torch.export` is asked for: every dimension (True), none (False), or those named.

    `dynamic={"input_ids": {0: "batch", 1: "sequence"}}` names them; equal names must mean equal sizes.
    """
    from torch.export import Dim

    if dynamic is False:
        return None
    if dynamic is True:
        return {
            name: dict.fromkeys(range(value.dim()), Dim.AUTO) if isinstance(value, torch.Tensor) else None
            for name, value in inputs.items()
        }
    unknown = sorted(set(dynamic) - set(inputs))
    if unknown:
        raise InputsNeeded(f"dynamic= names {', '.join(unknown)}, but the inputs are {', '.join(inputs)}.")
    return {
        name: dict.fromkeys(dynamic.get(name, {}), Dim.AUTO) if isinstance(value, torch.Tensor) else None
        for name, value in inputs.items()
    }


def one_batch(inputs: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Every dimension, with one name for the batch: the first of most inputs' first dimensions. Of a state no other."""
    from torch.export import Dim

    batch = Dim("batch")
    first = {name for name, dims in batch_only(inputs).items() if dims and inputs[name].dim() > 1}
    return {
        name: {
            axis: batch if axis == 0 and name in first else Dim.AUTO
            for axis in range(1 if is_state(name) else value.dim())
        }
        for name, value in inputs.items()
    }


def batch_only(inputs: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The first dimension of each input whose size is that of most inputs' first dimension."""
    from torch.export import Dim

    first = [value.shape[0] for value in inputs.values() if value.dim()]
    batch = max(first, key=first.count, default=None)
    return {name: {0: Dim.AUTO} if value.dim() and value.shape[0] == batch else None for name, value in inputs.items()}


def defaults(model: torch.nn.Module, call: Call, first: Answer) -> dict[str, int]:
    """Inputs that may be left out, and the value they stand for, proved on the example.

    Leaving `attention_mask` out means ones, leaving `token_type_ids` out means zeros: in most models, not
    in all. So both ways are run, and only where the outputs are bit for bit equal is the input optional.
    first: what the model has answered to the example.
    """
    inputs = call.tensors
    known = inspect.signature(model.forward).parameters
    candidates = {"attention_mask": 1, "token_type_ids": 0, "decoder_attention_mask": 1}
    found: dict[str, int] = {}
    for name, value in candidates.items():
        if name not in inputs or name not in known or known[name].default is inspect.Parameter.empty:
            continue
        filled = {**inputs, name: torch.full_like(inputs[name], value)}
        without = {key: tensor for key, tensor in inputs.items() if key != name}
        answered = torch.equal(filled[name], inputs[name])
        try:
            one = (first.flat, first.structure) if answered else describe_output(call.run(model, filled))
            other = describe_output(call.run(model, without))
        except Exception:  # noqa: BLE001 - a model that cannot run without it needs it
            continue
        if one[1] == other[1] and all(map(torch.equal, one[0], other[0])):
            found[name] = value
    return found
