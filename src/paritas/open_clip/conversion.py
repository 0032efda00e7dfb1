# SPDX-License-Identifier: Apache-2.0
"""Weights of CLIP models from one kind of file to another, every tensor compared by name, shape, dtype and value."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import open_clip
import torch

from paritas.errors import InputError, SourceError
from paritas.open_clip import checkpoints
from paritas.open_clip.making import architecture_of, check_name


@dataclasses.dataclass(frozen=True)
class Converted:
    """What was written. absent, unexpected and reshaped: names in which the weights differ from `model`'s own; none
    where no model was named."""

    source: Path
    out: Path
    tensors: int
    bytes: int
    model: str
    absent: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the weights are those of the model that was named, name by name and shape by shape."""
        return not (self.absent or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        lines = [f"{self.out}: {self.tensors} tensors, {self.bytes / 2**20:.1f} MiB, each as in {self.source}"]
        for names, words in (
            (self.absent, f"of {self.model}'s are not in it"),
            (self.unexpected, f"are none of {self.model}'s"),
            (self.reshaped, f"have another shape than {self.model}'s"),
        ):
            if names:
                lines.append(f"{len(names)} tensors {words}: {', '.join(names)}")
        if self.model and self.fits:
            lines.append(f"They are {self.model}'s, name by name and shape by shape.")
        return "\n".join(lines)


def convert(source: str | os.PathLike[str], out: str | os.PathLike[str], *, model: str = "") -> Converted:
    """Write the weights of a file into another one, whose name says of which kind: .ckpt, .safetensors or .pt.

    model: an architecture of open_clip's, whose tensors they are held against; of OpenAI's names too ("ViT-B/32").
    What was written is read again, and every tensor compared. Raises `SourceError` for files that cannot be read,
    `InputError` for an unknown model or a file that is there already.
    """
    source, out = Path(source).expanduser(), Path(out).expanduser()
    if out.exists():
        raise InputError(f"{out} is there already. Name another file, or remove it.")
    shapes = shapes_of(model) if model else {}
    weights = checkpoints.read(source)
    for name in ("input_resolution", "context_length", "vocab_size"):  # numbers in OpenAI's archives, and no weights
        if name in weights and weights[name].dim() == 0:
            del weights[name]
    checkpoints.write(weights, out)
    wrong = differing(weights, checkpoints.read(out))
    if wrong:
        out.unlink()
        raise SourceError(f"{out} was not written as {source} has it, and is removed: {', '.join(wrong[:5])}.")
    return Converted(
        source,
        out,
        len(weights),
        out.stat().st_size,
        model,
        tuple(name for name in shapes if name not in weights),
        tuple(name for name in weights if shapes and name not in shapes),
        tuple(name for name, shape in shapes.items() if name in weights and weights[name].shape != shape),
    )


def differing(wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> list[str]:
    """The names of tensors that are missing or added, or are of another dtype, shape or value."""
    wrong = sorted(wanted.keys() ^ found.keys())
    for name in wanted.keys() & found.keys():
        one, other = wanted[name], found[name]
        same = one.dtype == other.dtype and one.shape == other.shape
        if not (same and torch.equal(_bits(one), _bits(other))):
            wrong.append(name)
    return wrong


def _bits(value: torch.Tensor) -> torch.Tensor:
    """As whole numbers, of which every one is equal to itself."""
    return value.contiguous().reshape(-1).view(torch.uint8)


def shapes_of(model: str) -> dict[str, torch.Size]:
    """The shapes of an architecture's tensors by name; none of them is made."""
    name = architecture_of(model)
    check_name(name)
    with torch.device("meta"):
        made = open_clip.create_model(name, pretrained_text=False, load_weights=False, device="meta")
    return {name: value.shape for name, value in made.state_dict().items()}
