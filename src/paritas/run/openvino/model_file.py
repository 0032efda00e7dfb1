# SPDX-License-Identifier: Apache-2.0
"""A port's OpenVINO model out of memory: the bytes that were checked, and nothing that they may name elsewhere."""

from __future__ import annotations

import contextlib
import functools
import math
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import openvino

from paritas import contents
from paritas.errors import InputError, PortError, TamperedPort
from paritas.program import Artifact, Manifest

#: Elements of one tensor of fixed shape: a port that has a larger one asks for terabytes.
_MOST = 1 << 36

_INT32 = (1 << 31) - 1

#: Calls in which the CPU plugin may still pack weights: for prompts, single tokens, and a batch of either.
_PACKING = 8

#: Of a model's file.
_LARGEST = 1 << 28

#: What is no part of OpenVINO's own format, and what a reader of XML would look up or expand.
_FOREIGN = re.compile(rb"<!(DOCTYPE|ENTITY|ELEMENT|ATTLIST|NOTATION)|<\?xml-stylesheet", re.IGNORECASE)
_BEGIN = re.compile(rb"\s*(<\?xml\s+version=([\"'])1\.0\2(\s+encoding=([\"'])(utf-8|us-ascii)\4)?\s*\?>\s*)?<net[\s>]", re.IGNORECASE)  # fmt: skip  # noqa: E501


class File:
    """The two files of a model, held as long as anything that was made of them: OpenVINO does not copy its tables."""

    def __init__(self, artifact: Artifact) -> None:
        entry = artifact.manifest.entry
        self._where = artifact.entry
        self._xml = bytes(contents.take(artifact, entry))
        # OpenVINO would take bytes of another format for such a model, which may name files anywhere.
        if not _BEGIN.match(self._xml) or _FOREIGN.search(self._xml) or len(self._xml) > _LARGEST:
            raise PortError(f"{self._where} is no model of OpenVINO's own format. Make the port again.")
        name = str(PurePosixPath(entry).with_suffix(".bin"))
        self._mapped = contents.take_mapped(artifact, name)
        self._settle = functools.partial(contents.settle, artifact, name)
        self._calls = 0
        if self._mapped is not None:
            raw: Any = self._mapped.view
        else:
            raw = contents.take(artifact, name) if contents.has(artifact, name) else b""
        self._weights = np.frombuffer(raw, np.uint8) if len(raw) else np.zeros(1, np.uint8)

    def model(self, core: openvino.Core) -> openvino.Model:
        """The model, to be changed and compiled. Raises `PortError` for one that could only be compiled by mistake."""
        model = core.read_model(self._xml, openvino.Tensor(self._weights, shared_memory=True))
        for op in model.get_ops():
            for output in op.outputs():
                shape = output.get_partial_shape()
                if shape.rank.is_dynamic:
                    continue
                if math.prod(dim.get_min_length() for dim in shape if dim.is_static) > _MOST:
                    raise PortError(
                        f"{self._where}: {op.get_friendly_name()} has the shape {shape}, which no memory can hold."
                    )
        return model

    def settle(self) -> None:
        """Raise `TamperedPort` unless the weights are what their checksum says: before anything runs."""
        if self._mapped is not None:
            self._settle(self._mapped)

    @contextlib.contextmanager
    def lightly(self) -> Iterator[None]:
        """While it is open, of weights that lie in a file no more is in memory than is being read.

        The CPU plugin packs every weight anew, and looks at those of the file once more where it packs them otherwise.
        """
        mapped = self._mapped
        if mapped is None:
            yield
            return
        done = threading.Event()

        def let_go() -> None:
            while not done.wait(0.05):
                mapped.let_go()

        thread = threading.Thread(target=let_go, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            mapped.let_go()

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Around each call of what was compiled. Raises `TamperedPort` where the weights' file was written to."""
        mapped = self._mapped
        if mapped is None:
            yield
            return
        self._calls += 1
        with self.lightly() if self._calls <= _PACKING else contextlib.nullcontext():
            yield
        if mapped.changed:
            raise TamperedPort(f"{self._where.parent} was written to while it is in use. Load the port again.")


def check(model: openvino.Model, manifest: Manifest, own_name: object) -> None:
    """Raise `PortError` unless the model takes and returns what `port.json` says."""
    taken = [own_name(port) for port in model.inputs]  # type: ignore[operator]
    known = {spec.name for spec in manifest.inputs}
    if unknown := sorted({name or "(no name)" for name in taken} - known):
        raise PortError(f"The model takes {', '.join(unknown)}, of which port.json says nothing.")
    if len(set(taken)) < len(taken):
        raise PortError("Two inputs of the model have one name.")
    if len(model.outputs) != len(manifest.outputs) + bool(watched(manifest)):
        raise PortError(f"The model returns {len(model.outputs)} tensors; port.json says {len(manifest.outputs)}.")


def crossing(value: np.ndarray) -> np.ndarray:
    """An input as the model takes it: float64 as float32, complex numbers as pairs of these on a last axis of 2."""
    if value.dtype == np.float64:
        return value.astype(np.float32)
    if value.dtype.kind == "c":
        return np.ascontiguousarray(value, np.complex64).reshape(value.shape)[..., None].view(np.float32)
    return value


def returned(value: np.ndarray, dtype: str) -> np.ndarray:
    """A copy of an output, of the dtype that port.json has: the model returns float64 as float32, and pairs."""
    if dtype.startswith("complex"):
        return np.array(value).view(np.complex64)[..., 0].astype(dtype, copy=False)
    return np.array(value, np.float64) if dtype == "float64" else np.array(value)


def largest_whole(manifest: Manifest) -> int:
    """The largest whole number of an input with which no sum or product inside the model leaves 32 bits."""
    largest = manifest.settings.get("largest_whole", _INT32)
    if type(largest) is not int or not 0 < largest <= _INT32:
        raise PortError("port.json does not say how large whole numbers may be: make the port again.")
    return largest


def watched(manifest: Manifest) -> Sequence[str]:
    """Where the operators are that the model watches: its last output has a number for each, if there are any."""
    found = manifest.settings.get("watched", [])
    if not isinstance(found, list) or not all(isinstance(where, str) for where in found):
        raise PortError("port.json does not say which operators the model watches: make the port again.")
    return found


def taken_off(results: tuple[np.ndarray, ...], lines: Sequence[str]) -> tuple[np.ndarray, ...]:
    """The results without what the model says of the operators that it watches.

    Raises `InputError` if a number has left 32 bits in one of them, which the CPU plugin of OpenVINO 2026.4 cuts off.
    """
    if not lines:
        return results
    *rest, flags = results
    if flags.any():
        found = [line for line, flag in zip(lines, flags, strict=True) if flag]
        more = f", and in {len(found) - 1} more operators" if len(found) > 1 else ""
        raise InputError(
            f"A whole number leaves 32 bits in {found[0]}{more}, which OpenVINO cuts off. "
            "Port it to another engine for such inputs."
        )
    return tuple(rest)


def check_whole(feed: Mapping[str, np.ndarray], largest: int) -> None:
    """Raise `InputError` for larger ones: OpenVINO 2026.4's CPU plugin cuts off what is above 32 bits."""
    for name, array in feed.items():
        if array.dtype.kind not in "iu" or not array.size or np.iinfo(array.dtype).max <= largest:
            continue  # as small as its type is, it may be added to numbers that are not
        if array.min() < -largest - 1 or array.max() > largest:
            place = tuple(int(i) for i in np.argwhere((array < -largest - 1) | (array > largest))[0])
            raise InputError(
                f"{name} holds {array[place]} at {list(place)}. OpenVINO computes whole numbers in 32 bits, "
                f"for which this model takes -{largest + 1} to {largest}. Port it to another engine for larger ones."
            )
