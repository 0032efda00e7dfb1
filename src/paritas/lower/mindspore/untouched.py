# SPDX-License-Identifier: Apache-2.0
"""Whether a port's weights are those of its checkpoint's files, name by name and bit by bit: then it needs no copy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from paritas import files
from paritas.capture.checkpoint import safetensors_of
from paritas.errors import SourceError
from paritas.program import Source


def untouched(weights: Mapping[str, torch.Tensor], source: Source) -> list[Path]:
    """The checkpoint's files, if together they hold these weights and nothing besides, and are worth no copy."""
    from safetensors import SafetensorError, safe_open

    try:
        found = safetensors_of(source)
        if sum(path.stat().st_size for path in found) < files.FINAL:
            return []
        left = set(weights)
        for path in found:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - it is no mapping
                    if name not in left or not _same(file.get_tensor(name), weights[name]):
                        return []
                    left.remove(name)
    except (OSError, SafetensorError, SourceError):  # moved away or damaged since it was read
        return []
    return [] if left else found


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    bits, others = (tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(bits, others)
