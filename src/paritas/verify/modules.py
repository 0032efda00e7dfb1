# SPDX-License-Identifier: Apache-2.0
"""The table per module: each side runs on its own values; whose output leaves the tolerance first?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import numpy as np

from paritas.errors import reason_of
from paritas.program import ModuleCall, Origin
from paritas.run.session import Observes, Session
from paritas.verify.compare import Comparison, compare, distance
from paritas.verify.report.rows import ModuleParity
from paritas.verify.tolerance import HALF, Tolerance, whole_model

Feed = Mapping[str, np.ndarray]


class Walker(Protocol):
    """What the reference must do, so that its values need not all be kept: `run.torch.session.TorchSession` does."""

    precision: str

    def walk(
        self, feed: Feed, see: Callable[[str, np.ndarray], None] | None = None, names: Collection[str] | None = None
    ) -> list[np.ndarray]: ...

    def run(self, feed: Feed) -> list[np.ndarray]: ...


@dataclasses.dataclass(frozen=True)
class Inside:
    """What looking inside found: rows in the order of returning, and what could not be looked at."""

    rows: tuple[ModuleParity, ...] = ()
    unseen: Mapping[str, str] = dataclasses.field(default_factory=dict)  # module, or "module: node" -> reason
    observed: str = ""


def compare_modules(
    session: Session,
    reference: Walker,
    feed: Feed,
    modules: Sequence[ModuleCall],
    *,
    tolerance: Tolerance | None = None,
    truth: Walker | None = None,
    origin: Callable[[str], Origin] | None = None,
) -> Inside:
    """Compare what every module call returned, node by node: `session.observe(feed)` with the reference.

    The session's observe returns {node name: array}, as many as it can, and its `observed_with` says what that
    changed; without it everything is unseen.
    Floats must have the reference's dtype where the session computes in it, integers may have another width.
    truth: the same graph in float64, to tell the port's error from PyTorch's own. Raises what the reference
    raises; what the engine raises is a reason for `unseen`.
    """
    precision = session.precision
    if not isinstance(session, Observes):
        return Inside((), {_name(call): "the engine shows outputs only" for call in modules}, "modules not observed")
    try:
        got = dict(session.observe(feed))
    except Exception as error:  # noqa: BLE001 - whatever an engine does when observed, the outputs rule
        why = f"observing failed: {reason_of(error)}"
        return Inside((), {_name(call): why for call in modules}, "modules not observed")
    tolerance = tolerance or whole_model(precision)
    names = {node for call in modules for node in call.outputs}
    wanted = names & set(got)
    found: dict[str, Comparison] = {}
    kept: dict[str, np.ndarray] = {}

    def see(node: str, want: np.ndarray) -> None:
        value = got[node]
        dtype = _dtype(want, value, precision)
        result = compare(want, value, tolerance, dtype=dtype)
        found[node] = result
        if truth is not None and want.dtype.kind == "f" and not result.fault:
            kept[node] = want
        else:
            got.pop(node)

    reference.walk(feed, see, wanted)
    against_truth: dict[str, tuple[float, float]] = {}
    if truth is not None:

        def measure(node: str, true_values: np.ndarray) -> None:
            against_truth[node] = (distance(true_values, kept.pop(node)), distance(true_values, got.pop(node)))

        truth.walk(feed, measure, set(kept))

    rows, unseen = [], {}
    for call in modules:
        seen = [node for node in call.outputs if node in found]
        for node in call.outputs:
            if node not in found:
                why = "the engine's program has no value for it" if node not in got else "not a tensor in the original"
                unseen[_name(call) if not seen else f"{_name(call)}: {node}"] = why
        if not seen:
            continue
        node = max(seen, key=lambda n: (bool(found[n].fault), found[n].excess))
        result = found[node]
        torch_error, port_error = against_truth.get(node, (float("nan"), float("nan")))
        rows.append(
            ModuleParity(
                path=call.path,
                module_class=call.module_class.rsplit(".", 1)[-1],
                call=call.call,
                node=node,
                excess=result.excess,
                error=result.error,
                fault=result.fault,
                max_abs=result.max_abs,
                torch_error=torch_error,
                port_error=port_error,
                elements=sum(found[n].elements for n in seen),
                source=_source(origin, node),
            )
        )
    return Inside(tuple(rows), unseen, f"modules observed: {session.observed_with}")


def _name(call: ModuleCall) -> str:
    return call.path + (f" (call {call.call + 1})" if call.call else "")


def _source(origin: Callable[[str], Origin] | None, node: str) -> str:
    where = origin(node) if origin is not None else None
    return str(where) if where is not None and where.file else ""


def _dtype(want: np.ndarray, got: object, precision: str) -> np.dtype:
    """What the engine's value must have. Engines choose their own width for integers inside, and for halves."""
    if isinstance(got, np.ndarray):
        if want.dtype.kind in "iu" and got.dtype.kind in "iu":
            return got.dtype
        if precision in HALF and want.dtype.kind == "f" and got.dtype in (np.float16, np.float32):
            return got.dtype
    return want.dtype
