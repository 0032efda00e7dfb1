# SPDX-License-Identifier: Apache-2.0
"""How a port that goes on with a generation is fed, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from paritas import formulas, pipeline
from paritas.arguments import flatten
from paritas.caches import remembered
from paritas.errors import InputError
from paritas.guards import broken
from paritas.pytree import build_output
from paritas.run.values import check_feed, from_numpy, to_numpy
from paritas.transformers.cache import arrays_of
from paritas.transformers.calls import CACHE, TOKENS


class Plan:
    """What a port that goes on with a generation gets and returns, looked up once."""

    def __init__(self, port: pipeline.Port) -> None:
        manifest = port.manifest
        self.manifest = manifest
        self.names = remembered(manifest)
        grown = [spec for spec in manifest.inputs if spec.name in self.names and len(spec.dims) > 2]
        #: The sizes that say how many tokens were seen: layers that nothing compares may have one each.
        self.pasts = dict.fromkeys(str(spec.dims[2]) for spec in grown if not isinstance(spec.dims[2], int))
        self.cross = [
            spec.name for spec in manifest.inputs if spec.name.startswith(f"{CACHE}.") and spec.name not in self.names
        ]
        self.inputs = [s.name for s in manifest.inputs if s.name not in self.names and s.name not in self.cross]
        self.specs = [spec for spec in manifest.inputs if spec.name in self.inputs]
        #: The input whose second dimension is the new tokens: that of positions need not be.
        found = [name for name in self.inputs if name in TOKENS]
        self.counted = next((name for name in found if not name.endswith("position_ids")), next(iter(found), ""))
        self.nesting = {name: nested for name, nested in manifest.nesting.items() if name != CACHE}
        # The cache comes in last: it is the caller's own.
        items = {key: item for key, item in manifest.structure["items"].items() if item["kind"] != "cache"}
        self.structure = {**manifest.structure, "items": items}
        #: Inputs that can be checked quickly, and the first value that is too large: whole numbers of any that are not.
        self._plain = [
            (spec, spec.high or 0)
            for spec in self.specs
            if (spec.dtype, spec.low or 0, spec.never, spec.counts, spec.value) == ("int64", 0, (), "", None)
        ]
        #: The output that is all there is beside the cache, in the class that is returned; -1 if there are more.
        self._class: Any = None
        self._only = -1
        kept = [spec.dtype for spec in manifest.inputs if spec.name in self.names]
        self.dtype: torch.dtype = getattr(torch, kept[0] if kept else "float32")

    def feed(self, arguments: Mapping[str, Any], cross: Any) -> dict[str, np.ndarray]:
        given = flatten(arguments, self.nesting)
        if missing := [name for name in self.inputs if given.get(name) is None]:
            raise InputError(f"{', '.join(missing)} is missing: the generation was begun with it.")
        feed = {name: to_numpy(name, given[name]) for name in self.inputs}
        if self.cross:
            feed |= dict(zip(self.cross, arrays_of(cross), strict=True))
        return feed

    def checked(self, given: Mapping[str, Any], seen: int) -> tuple[dict[str, np.ndarray], int]:
        """What a call that goes on from `seen` tokens gets, and how many tokens it adds.

        given: torch tensors by name. Raises `InputError`, `SizeError` among them, for what the port does not take.
        """
        manifest = self.manifest
        if (quick := self.quick(given, seen)) is not None:
            return quick
        if missing := [name for name in self.inputs if given.get(name) is None]:
            raise InputError(f"{', '.join(missing)} is missing: the generation goes on with it.")
        known = dict.fromkeys(self.pasts, seen)
        feed = check_feed(given, self.specs, guards=manifest.guards, limits=manifest.limits, known=known)
        return feed, feed[self.counted].shape[1]

    def quick(self, given: Mapping[str, Any], seen: int) -> tuple[dict[str, np.ndarray], int] | None:
        """What `checked` returns of whole numbers as loops hand them on, in a twentieth of a millisecond.

        None if something may be wrong, which `checked` says, and for all else than such numbers.
        """
        sizes = dict.fromkeys(self.pasts, seen)
        feed: dict[str, np.ndarray] = {}
        for spec, limits in self._plain:
            value = given.get(spec.name)
            if type(value) is not torch.Tensor or value.dtype is not torch.int64 or not value.is_contiguous():
                return None
            array = feed[spec.name] = value.numpy()
            if array.ndim != len(spec.dims):
                return None
            for dim, size in zip(spec.dims, array.shape, strict=True):
                known: int | None = dim if isinstance(dim, int) else sizes.get(dim)
                if known is None:
                    known = size if str(dim).isidentifier() else formulas.whole(str(dim), sizes)
                    sizes[str(dim)] = known or 0
                if known != size or not size:
                    return None
            if limits and array.view(np.uint64).max() >= limits:  # a negative number is a large one without its sign
                return None
        if len(feed) < len(self.specs) or any(sizes.get(name, 0) > most for name, most in self.manifest.limits.items()):
            return None
        if broken(self.manifest.guards, sizes):
            return None
        return feed, feed[self.counted].shape[1]

    def output(self, found: Mapping[int, np.ndarray], cache: Any) -> Any:
        if self._only >= 0 and cache is not None:
            scores = torch.from_numpy(found[self._only])
            return self._class(**{self.manifest.outputs[self._only].name: scores, CACHE: cache})
        specs = self.manifest.outputs
        flat = [from_numpy(found[i], "torch", specs[i].dtype) if i in found else None for i in range(len(specs))]
        out = build_output(self.structure, flat, "torch")
        if cache is not None:
            out[CACHE] = cache
            if len(found) == 1 and [*out] == [specs[next(iter(found))].name, CACHE]:
                index = next(iter(found))
                if specs[index].dtype == "float32" and found[index].dtype == np.float32:
                    self._class, self._only = type(out), index
        return out


def plan_of(port: pipeline.Port) -> Plan:
    """The port's, looked up once."""
    plan = getattr(port, "_generation_plan", None)
    if plan is None:
        plan = port._generation_plan = Plan(port)  # type: ignore[attr-defined]
    return plan
