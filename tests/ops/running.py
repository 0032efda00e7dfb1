# SPDX-License-Identifier: Apache-2.0
"""The body of every case: lower, run in both modes, compare with eager torch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from making import Case, program_of

from paritas.lower.mindspore.lower import lower
from paritas.program import Artifact, Manifest
from paritas.run.mindspore import MindSpore
from paritas.verify.compare import Comparison, compare
from paritas.verify.tolerance import EXACT, Tolerance

MODES = ("pynative", "graph")

#: |got - want| of one operator on the same inputs, where both compute in that dtype.
TOLERANCES = {
    "float64": Tolerance(1e-14, 0.0, "45 roundings of 2e-16: reductions in another order", scaled=1e-14),
    "float32": Tolerance(
        2e-6,
        0.0,
        "16 roundings of 1.2e-7: vectorised exp, log and pow are polynomials on both sides",
        scaled=1e-6,
    ),
    "float16": Tolerance(
        2e-3, 0.0, "two roundings of 1e-3: torch computes in fp32 and rounds once", scaled=1e-3
    ),
}
TOLERANCES["complex64"] = TOLERANCES["float32"]


def tolerance_of(case: Case, dtype: str) -> Tolerance:
    return case.within or TOLERANCES.get(dtype, EXACT)


def results(case: Case) -> Iterator[tuple[str, Comparison]]:
    """What compares how: "graph, output 0", .. in both modes, at the captured and at the grown sizes."""
    program = program_of(case)
    with tempfile.TemporaryDirectory() as directory:
        lowered = lower(program, Path(directory))
        manifest = Manifest(
            engine="mindspore", dtype="float32", inputs=program.inputs, outputs=program.outputs, structure={},
            source=program.source, entry=lowered.entry, settings=lowered.settings,
        )  # fmt: skip
        session = MindSpore().load(Artifact(Path(directory), manifest), mode="graph")
        feeds = [case.tensors(grown) for grown in ([False, True] if case.is_dynamic else [False])]
        for mode in MODES:
            session.mode = mode
            for tensors in feeds:
                wants = [value.resolve_conj().numpy() for value in case.eager(tensors)]
                gots = session.run({f"x{i}": value.numpy() for i, value in enumerate(tensors)})
                assert len(gots) == len(wants), f"{case}: {len(gots)} outputs, want {len(wants)}"
                for position, (want, got) in enumerate(zip(wants, gots, strict=True)):
                    yield (
                        f"{mode}, output {position}",
                        compare(want, got, tolerance_of(case, str(want.dtype))),
                    )
        session.close()


def failures(case: Case) -> list[str]:
    """What is wrong with this case, in words; nothing if all agrees."""
    seen = list(results(case))
    assert seen, f"{case} compared nothing"
    return [f"{where}: {found}" for where, found in seen if not found.agrees]
