# SPDX-License-Identifier: Apache-2.0
"""A call per layer, written out by the capture, as the loop that it was."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from paritas.lower.mindspore.write.names import usable

#: "hidden_states = self.layers[3](hidden_states, attention_mask)"
_CALL = re.compile(r"(?P<out>\w+) = (?P<cells>self(?:\.\w+|\[\d+\])*\.\w+)\[(?P<index>\d+)\]\((?P<args>.*)\)")


def fold_loops(lines: Sequence[str], lengths: Mapping[str, int], taken: Collection[str] = ()) -> list[str]:
    """Replace a run of calls of all cells of a list, one after the other, by a `for` statement.

    lengths: how many cells each list has ("self.layers" -> 12). taken: the names that are no loop's. A run of some of
    them stays as it is, and so does one whose calls differ in anything but the index and the first call's input.
    """
    folded: list[str] = []
    position = 0
    while position < len(lines):
        run = _run(lines, position, lengths, taken)
        if run is None:
            folded.append(lines[position])
            position += 1
            continue
        length, statements = run
        folded += statements
        position += length
    return folded


def _run(
    lines: Sequence[str], start: int, lengths: Mapping[str, int], taken: Collection[str]
) -> tuple[int, list[str]] | None:
    first = _CALL.fullmatch(lines[start])
    if first is None or first["index"] != "0" or lengths.get(first["cells"], 0) < 2:
        return None
    count, cells = lengths[first["cells"]], first["cells"]
    calls = [_CALL.fullmatch(line) for line in lines[start : start + count]]
    if len(calls) < count or any(c is None or c["cells"] != cells for c in calls):
        return None
    second = calls[1]
    assert second is not None
    out, args = second["out"], second["args"]
    same = all(c and (c["index"], c["out"], c["args"]) == (str(i), out, args) for i, c in enumerate(calls) if i)
    if not same or first["out"] != out:
        return None
    entry = _entry(first["args"], args, out)
    if entry is None:
        return None
    item = _singular(cells.rpartition(".")[-1], taken)
    before = [] if entry == out else [f"{out} = {entry}"]
    return count, [*before, f"for {item} in {cells}:", f"    {out} = {item}({args})"]


def _entry(first: str, others: str, out: str) -> str | None:
    """What the loop's variable starts as: the only argument of the first call that is not as in the others."""
    mine, theirs = first.split(", "), others.split(", ")
    if len(mine) != len(theirs) or theirs.count(out) != 1:
        return None
    at = theirs.index(out)
    return (
        mine[at] if mine[:at] + mine[at + 1 :] == theirs[:at] + theirs[at + 1 :] and mine[at].isidentifier() else None
    )


def _singular(name: str, taken: Collection[str]) -> str:
    """A name for one cell of the list that hides nothing: "layers" -> "layer", "layer" -> "layer"."""
    word = name[:-1] if name.endswith("s") and len(name) > 2 else name
    word = item = word if usable(word) else f"{word}_cell"
    count = 0
    while item in taken:
        item = f"{word}_cell" + (f"_{count}" if count else "")
        count += 1
    return item
