# SPDX-License-Identifier: Apache-2.0
"""The rows of a report that stand for a model's layers: what a curve of errors has points for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from paritas.verify.report.rows import ModuleParity

#: Of fewer entries than these, those of the lists inside them are the layers: ResNet has four stages of blocks.
FEW = 6


@dataclasses.dataclass
class Branch:
    """A module, or a list of modules, in the tree that the paths of a report make."""

    path: str = ""
    children: dict[str, Branch] = dataclasses.field(default_factory=dict)
    rows: list[ModuleParity] = dataclasses.field(default_factory=list)  # one for each call

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def numbered(self) -> bool:
        return is_entry(self.path)

    def walk(self) -> Iterator[Branch]:
        """This one and all below."""
        yield self
        for child in self.children.values():
            yield from child.walk()


def is_entry(path: str) -> bool:
    """Whether the module at that path is an entry of a list of modules: "encoder.layer.3"."""
    return path.rpartition(".")[2].isdigit()


def tree(rows: Iterable[ModuleParity]) -> Branch:
    """The rows as a tree; lists of modules, which are never called, are branches without rows."""
    root = Branch()
    for row in rows:
        branch = root
        for part in filter(None, row.path.split(".")):
            path = f"{branch.path}.{part}" if branch.path else part
            branch = branch.children.setdefault(part, Branch(path))
        branch.rows.append(row)
    return root


def layers(rows: Sequence[ModuleParity]) -> tuple[ModuleParity, ...]:
    """The rows of the layers and of what is beside them (embeddings, last norm, head), in the order of returning.

    A layer is an entry of a list of modules: of the outermost lists, or of the lists inside where that makes too
    few points. A model without such lists has the modules that its forward calls.
    """
    root = tree(rows)
    found = _frontier(root, 1)
    if sum(id(row) in found and is_entry(row.path) for row in rows) < FEW:
        found = max(found, _frontier(root, 2), key=len)
    return tuple(row for row in rows if id(row) in found)


def stacks(rows: Sequence[ModuleParity]) -> dict[str, str]:
    """For each path, which part of the model it is in, where several have layers: encoder, decoder; else ""."""
    branch = tree(rows)
    while True:
        with_layers = [c for c in branch.children.values() if any(b.numbered for b in c.walk())]
        if any(child.numbered for child in with_layers) or not with_layers:
            return {row.path: "" for row in rows}
        if len(with_layers) > 1:
            break
        branch = with_layers[0]
    paths = [child.path for child in with_layers]
    return {row.path: next((p for p in paths if _inside(row.path, p)), "") for row in rows}


def _inside(path: str, of: str) -> bool:
    return path == of or path.startswith(of + ".")


def _frontier(root: Branch, depth: int) -> set[int]:
    """The ids of the rows of the modules at which to stop, going down: entries of lists, `depth` lists deep."""
    found: set[int] = set()

    def descend(branch: Branch, lists: int) -> None:
        lists += branch.numbered
        goes_on = _is_of_lists(branch) if lists else any(b.numbered for b in branch.walk())
        if branch.rows and (lists >= depth or not goes_on):
            found.update(map(id, branch.rows))
            return
        for child in branch.children.values():
            descend(child, lists)

    if not any(branch.numbered for branch in root.walk()):
        # A wrapper around everything is no point of a curve: go down to where there is more than one module.
        while len(root.children) == 1 and (only := next(iter(root.children.values()))).children:
            root = only
    for child in root.children.values():
        descend(child, 0)
    return found or set(map(id, root.rows))


def _is_of_lists(entry: Branch) -> bool:
    """Whether an entry of a list is itself a list, or holds one: a stage of blocks, but not a layer of experts."""
    return any(
        child.numbered or (not child.rows and any(inner.numbered for inner in child.children.values()))
        for child in entry.children.values()
    )
