# SPDX-License-Identifier: Apache-2.0
"""A part of a port, fed with the original's values at its border, and judged by float64 of the same part."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from paritas.errors import EngineError, LoweringError, ParitasError, UnsupportedOps, first_line
from paritas.program import Program
from paritas.run.torch.part import Part, Recorded, compute, part_of
from paritas.verify.nodes import ROUNDINGS, NodeInfo, roundings_of, row_of, same_order
from paritas.verify.report.rows import NodeParity
from paritas.verify.tolerance import AS_ACCURATE, HALF

#: What an engine makes of a part: (part, what was recorded, the nodes whose values can be given) -> output -> value.
Compute = Callable[[Part, Recorded, Sequence[str]], Mapping[str, np.ndarray]]

RULE = (
    f"|got-float64| <= max({AS_ACCURATE:g} * |PyTorch-float64|, roundings of the part), where each node of the part "
    "may add its own roundings; these do not know of each other, so they add up as a random walk does: the root of the "
    "sum of their squares. Where a part amplifies what enters it, PyTorch's own error grows as much. In half precision "
    "only the roundings of the worst node are added to it: more would let anything pass"
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a part.

    kind: "agrees"; "diverges"; "crashes" where the engine raises; "unknown" where it could not be tried at all.
    rows: one per output of the part. reason: of what was not computed, in words.
    """

    kind: Literal["agrees", "diverges", "crashes", "unknown"]
    rows: tuple[NodeParity, ...] = ()
    reason: str = ""

    @property
    def worst(self) -> NodeParity | None:
        return max(self.rows, key=lambda row: (bool(row.fault), row.excess), default=None)

    def __str__(self) -> str:
        if self.kind in ("crashes", "unknown"):
            return f"{self.kind}: {self.reason}"
        row = self.worst
        return self.kind if row is None else f"{self.kind}: {row.node}: {_what(row)}"


def _what(row: NodeParity) -> str:
    return row.fault or f"{row.excess:.3g} times what is allowed, error {row.error:.2e}"


@dataclasses.dataclass(frozen=True)
class Laboratory:
    """Everything that trying a part needs: the captured graph, what it computed once, and an engine.

    borders: the nodes at which the engine can be cut, in the graph's order. precision: of its arithmetic.
    """

    program: Program
    recorded: Recorded
    infos: Mapping[str, NodeInfo]
    compute: Compute
    borders: tuple[str, ...]
    precision: str

    def part(self, nodes: Sequence[str]) -> Part:
        return part_of(self.program, nodes, self.borders)

    def attempt(self, nodes: Sequence[str]) -> Outcome:
        """Compute `nodes` in one go from the recorded values around them, on the engine and in float64."""
        part = self.part(nodes)
        if not part.outputs:
            return Outcome("unknown", reason="nothing reads what these nodes compute")
        try:
            truth = compute(self.program, part, self.recorded, "float64")
            yardstick = self._yardstick(part)
        except ParitasError as error:
            return Outcome("unknown", reason=f"the reference: {first_line(error)}")
        try:
            got = self.compute(part, self.recorded, self.borders)
        except (LoweringError, UnsupportedOps) as error:
            return Outcome("unknown", reason=first_line(error))
        except EngineError as error:
            return Outcome("crashes", reason=first_line(error))
        judged = self._judged(part)
        if not judged:
            return Outcome("unknown", reason="all of it follows from an order, which may differ among equal values")
        rows = tuple(self._row(part, name, truth[name], yardstick[name], got.get(name)) for name in judged)
        return Outcome("agrees" if all(row.agrees for row in rows) else "diverges", rows)

    def _judged(self, part: Part) -> list[str]:
        """The outputs of the part, but for those that an order inside of it has arranged.

        Among equal values any order is right, and a rounding decides between others: routed tokens lie in other rows
        until they are put back. What the program itself returns is judged in any case.
        """
        members, arranged = set(part.members), set[str]()
        final: set[str] = set()
        for node in self.program.graph.nodes:
            if node.op == "output":
                final = {source.name for source in node.all_input_nodes}
            elif node.name in members and any(
                source.name in arranged or (source.name in members and self._orders(source.name))
                for source in node.all_input_nodes
            ):
                arranged.add(node.name)
        return [name for name in part.outputs if name not in arranged or name in final]

    def _orders(self, name: str) -> bool:
        return name in self.infos and bool(self.infos[name].orders)

    def _yardstick(self, part: Part) -> Mapping[str, np.ndarray]:
        if self.precision == "float32":
            return {name: self.recorded.tensors[name] for name in part.outputs}
        return compute(self.program, part, self.recorded, self.precision)

    def _row(
        self, part: Part, name: str, truth: np.ndarray, yardstick: np.ndarray, got: np.ndarray | None
    ) -> NodeParity:
        info, want = self.infos[name], self.recorded.tensors[name]
        if got is None:
            got = np.zeros((0, 0), want.dtype)  # of a shape that agrees with nothing
        elif want.dtype.kind in "biu" and want.shape == got.shape:
            got = self._without_ties(info, truth, want, got)
        return row_of(info, truth, want, yardstick, got, self.precision, self.roundings(part))

    def _without_ties(self, info: NodeInfo, truth: np.ndarray, want: np.ndarray, got: np.ndarray) -> np.ndarray:
        """Where rounding alone decides (PyTorch's own float32 and float64 differ), any answer is as good."""
        values = self.recorded.tensors.get(info.orders)
        if values is not None and same_order(values, want, got, info.dim):
            return want
        return np.where(truth.astype(want.dtype) == want, got, want).astype(got.dtype)

    def roundings(self, part: Part) -> float:
        """How many roundings the outputs of a part may be away from float64: see `RULE`."""
        each = (roundings_of(self.infos[name]) for name in part.members if name in self.infos)
        if self.precision in HALF:
            return max((*each, ROUNDINGS))
        return max(math.sqrt(sum(n * n for n in each)), ROUNDINGS)
