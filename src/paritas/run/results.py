# SPDX-License-Identifier: Apache-2.0
"""The check at the door on the way out: what an engine returns is what `port.json` says; and NaN on the way in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from paritas.errors import EngineError, InputError
from paritas.program import TensorSpec
from paritas.run.values import dynamic_sizes, size_of
from paritas.size_names import size_names, with_names

#: dtypes that are another in NumPy: it has no bfloat16, and OpenVINO hands float16 out as float32.
_CROSSES_AS = {"bfloat16": ("float32",), "float16": ("float16", "float32")}


def check_outputs(
    flat: Sequence[np.ndarray],
    outputs: Sequence[TensorSpec],
    inputs: Sequence[TensorSpec],
    feed: Mapping[str, np.ndarray],
) -> None:
    """Raise `EngineError`, naming the output, for another count, dtype, rank or size than is specified.

    A size that depends on what the inputs hold is not known here, and not checked.
    """
    if len(flat) != len(outputs):
        raise EngineError(f"The engine returned {len(flat)} outputs; port.json says {len(outputs)}.")
    sizes: dict[str, int] | None = None
    for spec, value in zip(outputs, flat, strict=True):
        if value.dtype not in _CROSSES_AS.get(spec.dtype, (spec.dtype,)):
            raise EngineError(_wrong(spec, inputs, f"it has dtype {value.dtype}"))
        if value.ndim != len(spec.dims):
            raise EngineError(_wrong(spec, inputs, f"its shape is {list(value.shape)}"))
        for axis, (dim, size) in enumerate(zip(spec.dims, value.shape, strict=True)):
            if isinstance(dim, int):
                want: int | None = dim
            else:
                sizes = dynamic_sizes(inputs, feed) if sizes is None else sizes
                want = size_of(dim, sizes)
            if want is not None and want != size:
                raise EngineError(_wrong(spec, inputs, f"its size is {size} in dimension {axis}, not {want}"))


def _wrong(spec: TensorSpec, inputs: Sequence[TensorSpec], what: str) -> str:
    dims = with_names(", ".join(map(str, spec.dims)), size_names([*inputs, spec]))
    return (
        f"The engine returned a wrong {spec.name}: {what}; port.json says {spec.dtype}[{dims}]. This port is wrong for "
        "these inputs: verify it, port.verify(level='nodes'), and report what it names."
    )


def check_finite(feed: Mapping[str, np.ndarray]) -> None:
    """Raise `InputError`, naming the inputs and the first places, for NaN and infinities."""
    wrong = []
    for name, value in feed.items():
        if value.dtype.kind not in "fc" or np.isfinite(value).all():
            continue
        places = np.argwhere(~np.isfinite(value))
        first = tuple(int(index) for index in places[0])
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        wrong.append(f"{name} holds {value[first]} at {list(first)}{more}; this port takes finite values only")
    if wrong:
        raise InputError("\n  ".join(wrong) + " (check_finite=True).")
