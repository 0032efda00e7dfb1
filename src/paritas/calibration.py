# SPDX-License-Identifier: Apache-2.0
"""What weights are rounded on: texts, or inputs of a model, read once so that a port can say on which it was."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paritas.errors import InputError

if TYPE_CHECKING:
    import numpy as np


@dataclasses.dataclass(frozen=True)
class Calibration:
    """texts: each a sample; where there is one file only, it is cut into samples. samples: an array per input.

    tokenizer: a directory or hub id that has one for the texts, "" for that of the model's source.
    """

    texts: tuple[str, ...] = ()
    is_file: bool = False
    samples: tuple[Mapping[str, np.ndarray], ...] = ()
    tokenizer: str = ""

    @property
    def digest(self) -> str:
        """Of all of it, in hexadecimal."""
        found = hashlib.sha256(b"file" if self.is_file else b"")
        for text in self.texts:
            found.update(len(text).to_bytes(8) + text.encode("utf-8", "surrogatepass"))
        for sample in self.samples:
            for name, value in sorted(sample.items()):
                found.update(f"{name} {value.dtype} {value.shape} ".encode() + value.tobytes())
        return found.hexdigest()[:16]


def calibration(dataset: Any, most: int) -> Calibration:
    """`dataset` as it is read once: the path of a text file, a list of texts, or an iterable of inputs.

    Inputs are mappings by name, or token ids. At most `most` samples are taken of an iterable. Raises `InputError` for
    what is none of these, and for one without a sample.
    """
    if isinstance(dataset, Calibration):
        return dataset
    if isinstance(dataset, str | os.PathLike):
        return _of_file(Path(dataset).expanduser())
    if hasattr(dataset, "get_inference_data"):  # nncf.Dataset
        dataset = dataset.get_inference_data()
    if isinstance(dataset, Mapping) or not isinstance(dataset, Iterable):
        raise InputError(f"dataset is no {type(dataset).__name__}: give a text file, a list of texts or of inputs.")
    found = list(itertools.islice(dataset, most))
    if not found:
        raise InputError("dataset has no sample.")
    if all(isinstance(one, str) for one in found):
        return Calibration(texts=tuple(found))
    return Calibration(samples=tuple(_arrays(number, one) for number, one in enumerate(found, 1)))


def _of_file(path: Path) -> Calibration:
    if not path.is_file():
        raise InputError(
            f"dataset={str(path)!r} is no file here: give a text file, a list of texts or of inputs. A dataset of a "
            "hub is not fetched."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"dataset={str(path)!r} cannot be read as a text: {error}.") from None
    if not text.strip():
        raise InputError(f"dataset={str(path)!r} is empty.")
    return Calibration(texts=(text,), is_file=True)


def _arrays(number: int, sample: Any) -> Mapping[str, np.ndarray]:
    if isinstance(sample, str):
        raise InputError("dataset mixes texts and inputs: give one of both.")
    if not isinstance(sample, Mapping):
        sample = {"input_ids": sample}
    try:
        import numpy as np

        found = {str(name): np.asarray(value) for name, value in sample.items()}
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"Sample {number} of the dataset is no mapping of arrays by name: {error}.") from None
    if strange := [name for name, value in found.items() if value.dtype.kind not in "biufc"]:
        raise InputError(f"Sample {number} of the dataset has no numbers in {', '.join(strange)}.")
    if "input_ids" in found and found["input_ids"].ndim == 1:
        found = {name: value[None] if value.ndim == 1 else value for name, value in found.items()}
    return found
