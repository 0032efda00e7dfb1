# SPDX-License-Identifier: Apache-2.0
"""What a bisection found: in words and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Literal

from paritas.verify.report.rows import Environment, NodeParity, plain


@dataclasses.dataclass(frozen=True)
class PartNode:
    """One operator of the part, and where it comes from."""

    node: str
    target: str
    module: str
    module_class: str
    source: str = ""

    def __str__(self) -> str:
        where = f"in {self.module or 'the model'} ({self.module_class})"
        return f"{self.node} = {self.target} {where}" + (f"\n      {self.source}" if self.source else "")


@dataclasses.dataclass(frozen=True)
class ScriptRow:
    """A script that was written, or why there is none.

    doubt: what it did, when it was run by itself, instead of diverging; "" if it diverged.
    """

    node: str
    file: str = ""
    tensors: str = ""
    doubt: str = ""

    def __str__(self) -> str:
        if not self.file:
            return f"{self.node}: no script: {self.doubt}"
        said = self.doubt or "it diverges by itself as well, without paritas"
        return f"{self.file}   ({said})"


@dataclasses.dataclass(frozen=True)
class BisectReport:
    """The outcome of `Port.bisect`.

    verdict: "clean" where the port as a whole is right on all cases; "found"; "lost" where it is wrong, and no whole
    that could be cut was. kind: how the whole ended, "diverges" or "crashes". tries: outcome -> number of parts.
    """

    verdict: Literal["clean", "found", "lost"]
    environment: Environment
    rule: str
    subject: str = ""
    kind: str = ""
    case: str = ""
    said: str = ""  # what the port as a whole did
    method: str = ""  # how parts were computed
    of: int = 0  # nodes at which it could be cut
    nodes: tuple[PartNode, ...] = ()
    outputs: tuple[NodeParity, ...] = ()
    reason: str = ""  # what the part did
    minimal: bool = True
    tries: Mapping[str, int] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    script: ScriptRow | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = f"  {self.subject + ': ' if self.subject else ''}{self.environment}"
        notes = [f"  note: {note}" for note in self.notes]
        rule = f"  rule: {self.rule}"
        if self.verdict == "clean":
            return "\n".join(["nothing to bisect: the whole agrees with float64 on every case", head, rule, *notes])
        lines = [head, f'  case "{self.case}": the port {self.said}', rule, f"  parts: {self.method}"]
        tried = sum(self.tries.values())
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.tries.items()))
        if self.verdict == "lost":
            first = "lost: the port is wrong, but its captured graph is not, however it is run in parts"
            return "\n".join([first, *lines, *notes])
        size = f"{len(self.nodes)} of {self.of} nodes" if len(self.nodes) != 1 else f"one node of {self.of}"
        least = "none can be left out" if self.minimal else "the time was up, so it may not be the smallest"
        first = f"found: {size}; {least}; {tried} parts tried ({kinds}) in {self.seconds:.0f} s"
        lines += [f"  {node}" for node in self.nodes[:20]]
        if len(self.nodes) > 20:
            lines.append(f"  and {len(self.nodes) - 20} nodes more")
        lines.append(f"  the part {self.reason}")
        if self.script is not None:
            lines.append(f"  script: {self.script}")
        return "\n".join([first, *lines, *notes])

    def to_json(self) -> str:
        """Valid JSON: infinities and NaN are strings."""
        return json.dumps(plain(dataclasses.asdict(self)), indent=1, allow_nan=False, ensure_ascii=False)
