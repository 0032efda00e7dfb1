# SPDX-License-Identifier: Apache-2.0
"""Where the original's modules and weights are in the generated cells, and under which attributes.

An attribute is what the original calls it, wherever a cell can have an attribute of that name. Else it is the nearest
name that is free: "a b" is `a_b`, "3x3" is `_3x3`, "class" is `class_`.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping

from paritas.lower.mindspore.write.cell_names import is_free

#: Longer ones are cut.
_LONGEST = 80

_INDEX = re.compile(r"0|[1-9]\d{0,8}", re.ASCII)


def is_index(part: str) -> bool:
    """Whether a part of a path is one of a list's: "01" is none, for it is not "1"."""
    return _INDEX.fullmatch(part) is not None


def attribute(original: str, taken: Collection[str] = ()) -> str:
    """The attribute for what the original calls `original`; none of `taken`."""
    name = original
    if not _usable(name) or len(name) > _LONGEST:
        # "é" without its accent; what has no letter of ASCII is an underscore.
        plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
        name = re.sub(r"\W", "_", plain, flags=re.ASCII)[:_LONGEST]
        if name.startswith("__") or not name.strip("_"):
            name = f"_{name.strip('_') or 'named'}"
        if name[0].isdigit():
            name = f"_{name}"
        if not _usable(name):
            name += "_"
    found, count = name, 1
    while found in taken or not _usable(found):
        count += 1
        found = f"{name}_{count}"
    return found


def _usable(name: str) -> bool:
    return is_free(name) and not keyword.iskeyword(name)


class Places:
    """The attribute of every module and weight, cell by cell; two of them never share one.

    held: path of a cell -> what it holds, by the original's names. lists: the paths whose modules are items of a list.
    """

    def __init__(self, held: Mapping[str, Iterable[str]], lists: Collection[str]) -> None:
        self._found: dict[str, dict[str, str]] = {}
        for path, names in held.items():
            found = self._found[path] = {}
            named = [name for name in dict.fromkeys(names) if not (path in lists and is_index(name))]
            # Who can keep his name has it before others are given one.
            for name in sorted(named, key=lambda name: attribute(name) != name):
                found[name] = attribute(name, found.values())

    def of(self, path: str) -> str:
        """The attribute of what is at a path in the cell around it."""
        around, _, name = path.rpartition(".")
        return self._found.get(around, {}).get(name, name)

    def add(self, path: str) -> None:
        """Something that was made for the port, under a name that is free."""
        around, _, name = path.rpartition(".")
        self._found.setdefault(around, {})[name] = name

    def is_taken(self, around: str, name: str) -> bool:
        """Whether the cell at `around` holds something under this attribute, or may not."""
        found = self._found.get(around, {})
        return not _usable(name) or name in found or name in found.values()

    def attributes(self, path: str) -> list[str]:
        """ "heads.a b.0.weight" as the attributes and indices that lead to it: heads, a_b, 0, weight."""
        parts = path.split(".") if path else []
        return [self.of(".".join(parts[: end + 1])) for end in range(len(parts))]

    def named(self, path: str) -> str:
        """What MindSpore calls it."""
        return ".".join(self.attributes(path))

    def access(self, path: str, since: str = "") -> str:
        """The source of it, after the cell at `since` that contains it: ".layers[3].weight"."""
        parts = self.attributes(path)[since.count(".") + 1 if since else 0 :]
        return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in parts)
