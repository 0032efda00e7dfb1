# SPDX-License-Identifier: Apache-2.0
"""Cuts a sample that fails down to the least that still fails in the same way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from tests.fuzz.sample import Given, Line, Sample, trimmed


def shrink(sample: Sample, fails: Callable[[Sample], bool], tries: int = 40) -> Sample:
    """fails: whether a sample still does. Greedy: the first smaller one that fails is cut down further."""
    while tries > 0:
        for smaller in _smaller(sample):
            tries -= 1
            if fails(smaller):
                sample = smaller
                break
            if tries <= 0:
                break
        else:
            break
    return sample


def _smaller(sample: Sample) -> Iterator[Sample]:
    names = [line.name for line in sample.lines if line.name]
    if len(sample.outputs) > 1:
        for name in sample.outputs:
            yield trimmed(dataclasses.replace(sample, outputs=(name,), inner=(0, 0)))
    if sample.inner != (0, 0):
        yield dataclasses.replace(sample, inner=(0, 0))
    # An earlier value as the output: what follows is not needed then.
    for name in names[:-1]:
        if (name,) != sample.outputs:
            yield trimmed(dataclasses.replace(sample, outputs=(name,), inner=(0, 0)))
    # An input in place of a value: what led to it is not needed then.
    for name in reversed(names[:-1]):
        if (cut := _given_instead(sample, name)) is not None:
            yield cut
    for place, line in enumerate(sample.lines):
        if not line.name:
            lines = sample.lines[:place] + sample.lines[place + 1 :]
            yield trimmed(dataclasses.replace(sample, lines=lines, inner=(0, 0)))


def _given_instead(sample: Sample, name: str) -> Sample | None:
    """The sample with `name` as an input that holds what PyTorch computes for it on the example."""
    from tests.fuzz.judge import module_of

    place = next(i for i, line in enumerate(sample.lines) if line.name == name)
    try:
        probe = trimmed(dataclasses.replace(sample, lines=sample.lines[: place + 1], outputs=(name,), inner=(0, 0)))
        value = module_of(probe)(**{n: v for n, v in sample.example().items() if n in probe.inputs})
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in ("float32", "int64", "int32", "uint8", "bool") or value.numel() > 200:
            return None
    except Exception:  # noqa: BLE001
        return None
    given = Given(tuple(value.shape), dtype, data=value.tolist())
    fresh = f"x{900 + place}"
    lines = [line for i, line in enumerate(sample.lines) if i != place]
    import re

    def renamed(text: str) -> str:
        return re.sub(rf"(?<![\w.]){name}\b", fresh, text)

    cut = tuple(Line(renamed(line.text), line.name) for line in lines)
    outputs = tuple(o for o in sample.outputs if o != name)
    if not outputs:
        return None
    # A value that is changed in place is no input any more: inputs are not written to here.
    if any(not line.name and line.text.startswith(fresh) for line in cut):
        return None
    return trimmed(
        dataclasses.replace(sample, inputs={**sample.inputs, fresh: given}, lines=cut, outputs=outputs, inner=(0, 0))
    )
