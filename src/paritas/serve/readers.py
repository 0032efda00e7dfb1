# SPDX-License-Identifier: Apache-2.0
"""What reads images, texts and sounds for a port: what lies beside it says how.

Plain processors are followed with NumPy, Pillow and `tokenizers`; where a port wants more, transformers' own does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from paritas.ports import Port
from paritas.serve.beside import BOTH, IMAGES_OR_SOUNDS, TOKENIZER, said
from paritas.serve.settings import Limits


class Reader(Protocol):
    """Makes a port's inputs of what a client has."""

    name: str  # of the input, as clients call it
    content: str  # "image", "text" or "audio"

    def read(self, values: Sequence[bytes | str]) -> dict[str, Any]:
        """The port's inputs, a row for each value. Raises `InputError` that names the row."""
        ...


def reader_for(directory: Path, port: Port, limits: Limits) -> Reader | None:
    """What reads for a port; None where nothing beside it does, or where it wants more than one thing to be read."""
    wanted = {spec.name for spec in port.inputs if spec.default is None}
    told = said(directory, IMAGES_OR_SOUNDS)
    if not told:
        both = said(directory, BOTH)
        told = both.get("image_processor") or both.get("feature_extractor") or {}
    if wanted == {"pixel_values"} and told:
        from paritas.serve.images import Images

        return Images(directory, told, port, limits)
    if wanted & {"input_values", "input_features"} and len(wanted) == 1 and told:
        from paritas.serve.sounds import Sounds

        return Sounds(directory, told, port, limits)
    if "input_ids" in wanted and wanted <= {"input_ids", "attention_mask", "token_type_ids", "position_ids"}:
        has = any((directory / name).is_file() for name in ("tokenizer.json", TOKENIZER))
        if has:
            from paritas.serve.texts import Texts

            return Texts(directory, port, limits)
    return None
