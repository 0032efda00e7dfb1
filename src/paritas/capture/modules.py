# SPDX-License-Identifier: Apache-2.0
"""The module tree, rebuilt from a flat graph: which nodes ran inside which call of which module.

`torch.export.unflatten` does something similar, but copies the graph into one interpreter per module and
fails on strided views (T5). Here a `Region` only groups the nodes that are there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch.fx import Node

from paritas.capture.origin import Level, levels
from paritas.program import ModuleCall


@dataclasses.dataclass(eq=False)
class Region:
    """One call of one module: its own nodes and the regions of the modules it called, in order.

    `inputs` are nodes made outside and used inside, `outputs` nodes made inside and used outside.
    Parameters and buffers are neither: they are reached by name.
    """

    key: str
    path: str
    module_class: str  # qualified: "torch.nn.modules.linear.Linear"
    call: int = 0
    parent: Region | None = None
    items: list[Node | Region] = dataclasses.field(default_factory=list)
    inputs: list[Node] = dataclasses.field(default_factory=list)
    outputs: list[Node] = dataclasses.field(default_factory=list)

    @property
    def class_name(self) -> str:
        return self.module_class.rsplit(".", 1)[-1]

    def nodes(self) -> Iterator[Node]:
        """Every node inside, those of called modules included, in order."""
        for item in self.items:
            if isinstance(item, Region):
                yield from item.nodes()
            else:
                yield item

    def regions(self) -> Iterator[Region]:
        """This region and all below, in the order in which they return."""
        for item in self.items:
            if isinstance(item, Region):
                yield from item.regions()
        yield self


def is_size(node: Node) -> bool:
    """Whether `node` is symbolic-shape arithmetic: made again from `x.shape` wherever it is needed."""
    return node.op == "call_function" and isinstance(
        node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool, int)
    )


def module_tree(graph: torch.fx.Graph, model_class: str) -> Region:
    """The region of the whole model. Every call_function node of `graph` but the sizes is in exactly one region.

    A module that is entered again after it returned gets a second region with `call` 1. A module that is
    called from outside its own parent (a shared layer) is dissolved into its caller, which can then
    reach its parameters as arguments.
    """
    root = Region("", "", model_class)
    opened = [root]
    calls: dict[str, int] = {}
    for node in graph.nodes:
        if node.op != "call_function" or is_size(node):
            continue
        stack = _below_root(levels(node), opened)
        depth = 0
        while depth < len(stack) and depth + 1 < len(opened) and opened[depth + 1].key == stack[depth].key:
            depth += 1
        del opened[depth + 1 :]
        for level in stack[depth:]:
            parent = opened[-1]
            region = Region(level.key, level.path, level.module_class, calls.get(level.path, 0), parent)
            calls[level.path] = region.call + 1
            parent.items.append(region)
            opened.append(region)
        opened[-1].items.append(node)
    _find_borders(root, graph)
    return root


def _below_root(stack: Sequence[Level], opened: Sequence[Region]) -> list[Level]:
    """The levels under the model itself, as far as each is really inside the one before."""
    if not stack:  # a node that a pass has added, or a lifted constant: it belongs where we are
        return [Level(region.key, region.path, region.module_class) for region in opened[1:]]
    inside: list[Level] = []
    prefix = ""
    for level in stack[1:]:
        if ".parametrizations." in f".{level.path}.":
            break  # how a module makes its weight of others (weight_norm) is the module's own business
        if level.path and level.path != prefix.rstrip(".") and level.path.startswith(prefix):
            inside.append(level)
            prefix = level.path + "."
    return inside


def _find_borders(root: Region, graph: torch.fx.Graph) -> None:
    home: dict[Node, Region] = {}

    def settle(region: Region) -> None:
        for item in region.items:
            if isinstance(item, Region):
                settle(item)
            else:
                home[item] = region

    settle(root)
    order = {node: position for position, node in enumerate(graph.nodes)}
    weights = {n for n in graph.nodes if n.op == "placeholder" and not is_user_input(n)}

    def chain(region: Region | None) -> list[Region]:
        found = []
        while region is not None:
            found.append(region)
            region = region.parent
        return found

    for node in graph.nodes:
        users = [u for u in node.users if u in home or u.op == "output"]
        if not users or is_size(node) or node in weights:
            continue
        inside = chain(home.get(node))
        for user in users:
            around = chain(home[user]) if user in home else [root]
            for region in around:
                if region not in inside and node not in region.inputs:
                    region.inputs.append(node)
            for region in inside:
                if (region not in around or user.op == "output") and node not in region.outputs:
                    region.outputs.append(node)
    for region in root.regions():
        region.inputs.sort(key=order.__getitem__)
        region.outputs.sort(key=order.__getitem__)


def is_user_input(node: Node) -> bool:
    return bool(node.meta.get("paritas_input"))


def module_calls(root: Region) -> tuple[ModuleCall, ...]:
    """What verification can look at: every module call that returns something, in the order of returning."""
    return tuple(
        ModuleCall(region.path, region.class_name, region.call, tuple(node.name for node in region.outputs))
        for region in root.regions()
        if region.outputs and region.path
    )
