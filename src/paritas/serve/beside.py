# SPDX-License-Identifier: Apache-2.0
"""What lies beside a port and says how its inputs are read and its answers worded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from paritas import files
from paritas.errors import PortError
from paritas.texts import tokenizer_in

#: What `paritas port` copies beside a port, by what it is for.
IMAGES_OR_SOUNDS, BOTH, TOKENIZER = "preprocessor_config.json", "processor_config.json", "tokenizer_config.json"


def said(directory: Path, name: str) -> dict[str, Any]:
    """What a file of JSON beside a port says; {} where it is not there. Raises `PortError` for what is no object."""
    place = directory / name
    if not place.is_file():
        return {}
    try:
        found = json.loads(files.text(place, 1 << 24))
    except ValueError as error:
        raise PortError(f"{place} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise PortError(f"{place} holds no object.")
    return found


def tokenizer(directory: Path) -> Any:
    """Its tokenizer, which neither fills texts up nor cuts them, whatever its file says."""
    found = tokenizer_in(directory)
    found.no_padding()
    found.no_truncation()
    return found
