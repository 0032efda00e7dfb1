# SPDX-License-Identifier: Apache-2.0
"""What people are told instead of "s18": the sizes that are free, by what they count."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from paritas.program import TensorSpec

#: As torch names a size that is free, or that depends on data.
_SYMBOL = re.compile(r"\b[su]\d+\b")

#: The last part of an input's name -> what its dimensions count, by their place; negative places are from the end.
_COUNTED: tuple[tuple[tuple[str, ...], dict[int, str]], ...] = (
    (("encoder_hidden_states", "encoder_attention_mask"), {1: "encoder_tokens"}),
    (("decoder_input_ids", "decoder_attention_mask", "decoder_inputs_embeds"), {1: "decoder_tokens"}),
    (
        ("input_ids", "inputs_embeds", "attention_mask", "position_ids", "token_type_ids", "hidden_states"),
        {1: "tokens"},
    ),
    (("keys", "values"), {2: "seen"}),
    (("pixel_values", "pixels", "sample", "images"), {-2: "height", -1: "width"}),
    (("input_features",), {1: "frames", 2: "frames"}),
    (("input_values",), {1: "samples"}),
)


def size_names(specs: Iterable[TensorSpec]) -> dict[str, str]:
    """Symbol -> a name that no other has: "batch", "tokens", "seen", "x_size2", "n" for what is no size by itself.

    What has a name already is left out.
    """
    listed = list(specs)
    found: dict[str, str] = {}
    own = {spec.name for spec in listed}
    for spec in listed:
        for axis, dim in enumerate(spec.dims):
            symbol = str(dim)
            if not isinstance(dim, str) or symbol in found or symbol in own or not _SYMBOL.fullmatch(symbol):
                continue
            plain = re.sub(r"\W+", "_", spec.name)
            wanted = _counted(spec, axis) or f"{plain}_size{axis}"
            taken = own | set(found.values())
            one = next(name for name in (wanted, f"{wanted}_of_{plain}", f"{plain}_size{axis}") if name not in taken)
            found[symbol] = one
    taken = own | set(found.values())
    letters = (letter for letter in (*"nmk", *(f"n{i}" for i in range(2, 1000))) if letter not in taken)
    # What is no size itself, as "8*s2" where that is the only place of s2.
    for symbol in dict.fromkeys(s for spec in listed for dim in spec.dims for s in _SYMBOL.findall(str(dim))):
        if symbol not in found and symbol not in own:
            found[symbol] = next(letters)
    return found


def _counted(spec: TensorSpec, axis: int) -> str:
    if axis == 0:
        return "batch"
    last = spec.name.rpartition(".")[2]
    for names, places in _COUNTED:
        if last in names:
            return places.get(axis) or places.get(axis - len(spec.dims), "")
    return ""


def with_names(text: str, names: Mapping[str, str]) -> str:
    """A text with these names in the places of symbols."""
    return _SYMBOL.sub(lambda found: names.get(found[0], found[0]), text) if names else text


def shown(specs: Sequence[TensorSpec], inputs: Sequence[TensorSpec] = ()) -> list[str]:
    """Inputs, or outputs of these inputs, as people read them: "input_ids: int64[batch, tokens]"."""
    names = size_names([*inputs, *specs])
    return [with_names(str(spec), names) for spec in specs]
