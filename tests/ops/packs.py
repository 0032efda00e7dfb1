# SPDX-License-Identifier: Apache-2.0
"""Cases, dozens to a program: compiling takes the time, and they do not share a value.

A case that agrees in a pack agrees. One that does not is run by itself, so that what is said of it is of it alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from making import Case
from running import failures, in_halves, is_missing
from under_test import UnderTest

PACK = 30


class Packs:
    """The cases of a run, in packs that are computed when the first of their cases is asked for."""

    def __init__(self, asked: Iterable[tuple[Case, UnderTest]]) -> None:
        # What an engine has a lowering of is in packs of its own: one that is not composed spoils a pack. So are free
        # sizes, which are computed twice. Gaps are there to fail.
        chosen: dict[tuple[str, Sequence[str], bool, bool], list[Case]] = defaultdict(list)
        for case, engine in asked:
            if engine.gap_of(case) is None:
                chosen[engine.name, engine.modes, case.target in engine.lowerings, case.is_dynamic].append(case)
        self._pack_of: dict[tuple[str, Sequence[str], str], list[Case]] = {}
        for (name, modes, *_), cases in chosen.items():
            for start in range(0, len(cases), PACK):
                pack = cases[start : start + PACK]
                self._pack_of |= {(name, modes, str(case)): pack for case in pack}
        self._agrees: dict[tuple[str, Sequence[str], str], bool] = {}

    def failures(self, case: Case, engine: UnderTest) -> list[str]:
        """What is wrong with the case, in words; nothing if all agrees. Raises what lowering or running it raises."""
        key = (engine.name, engine.modes, str(case))
        if key in self._pack_of and key not in self._agrees:
            pack = [one for one in self._pack_of[key] if not is_missing(one, engine)]
            # The case that an error is of raises it again by itself.
            for other, found in in_halves(pack, engine, Exception, grows=True):
                agrees = not isinstance(found, Exception) and bool(found) and all(one.agrees for _, one in found)
                self._agrees[engine.name, engine.modes, str(other)] = agrees
        return [] if self._agrees.get(key) else failures(case, engine)
