# SPDX-License-Identifier: Apache-2.0
"""Lockstep: every node of the port gets the original's inputs, so an error is seen where it is made, and only there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import numpy as np

from paritas.errors import reason_of
from paritas.program import Origin
from paritas.run.session import Session, StepsNodes
from paritas.verify.compare import RELATIVE, compare, distance
from paritas.verify.report.rows import NodeParity
from paritas.verify.tolerance import AS_ACCURATE, EPSILON

Feed = Mapping[str, np.ndarray]
See = Callable[[str, np.ndarray], None]

#: A node may be this many roundings away from float64, whatever PyTorch's own error is. Engines have their own erf and
#: exp (MindSpore's are 10 roundings off); a LayerNorm with 1e-5 for 1e-12 is 30 off.
ROUNDINGS = 16

#: Attention is two products and a softmax: a score of 30 enters exp with 30 roundings of its own. A softmax is an exp
#: over a sum of exps: twice the roundings of one.
ROUNDINGS_OF = {"aten.scaled_dot_product_attention.default": 64, "aten.softmax.int": 32, "aten._softmax.default": 32}

#: Engines hold integers in 32 bits. What is beyond them is a cast of an infinity, which no two processors do alike.
_INT32 = 1 << 31


@dataclasses.dataclass(frozen=True)
class NodeInfo:
    """A node of the captured graph: its name, its operator ("aten.linear.default"), where it comes from."""

    name: str
    target: str
    origin: Origin
    orders: str = ""  # the node whose values it puts in order along `dim`, where it is such an order
    dim: int = -1
    terms: int = 1  # how many products are summed for one element


class Steps(Protocol):
    """What the reference must do: `run.torch.session.TorchSession` does."""

    precision: str

    def walk(self, feed: Feed, see: See | None = None, names: Collection[str] | None = None) -> list[np.ndarray]: ...

    def locally(self, feed: Feed, given: Feed, see: See, names: Collection[str] = ()) -> list[np.ndarray]: ...


@dataclasses.dataclass(frozen=True)
class Lockstep:
    """What walking in lockstep found: a row for every node that the engine computes, in the graph's order."""

    rows: tuple[NodeParity, ...] = ()
    unseen: Mapping[str, str] = dataclasses.field(default_factory=dict)  # node -> why it was not compared
    observed: str = "nodes not computed one by one"


def compare_nodes(
    session: Session,
    reference: Steps,
    truth: Steps,
    feed: Feed,
    nodes: Sequence[NodeInfo],
    *,
    yardstick: Steps | None = None,
) -> Lockstep:
    """Compare each of `nodes`, computed by the engine from the reference's values of the nodes before it.

    reference: the captured graph in fp32. truth: in float64, which each node too computes from the reference's
    values: what is left is the rounding of that node alone. yardstick: the graph at the port's half precision.
    A node agrees if its distance from truth is at most `AS_ACCURATE` times PyTorch's own, or `ROUNDINGS`
    roundings, more in long sums; integers and booleans must be equal. Raises what the reference raises.
    """
    precision = session.precision
    if not isinstance(session, StepsNodes):
        return Lockstep(unseen={node.name: "the engine shows outputs only" for node in nodes})
    wanted = frozenset(session.nodes()) & {node.name for node in nodes}
    given: dict[str, np.ndarray] = {}
    reference.walk(feed, given.__setitem__, wanted)
    try:
        got = dict(session.lockstep(feed, given))
    except Exception as error:  # noqa: BLE001 - whatever an engine does when taken apart, the outputs rule
        why = f"the engine failed: {reason_of(error)}"
        return Lockstep(unseen={node.name: why for node in nodes})
    halves: dict[str, np.ndarray] = {}
    if yardstick is not None:
        yardstick.locally(feed, given, halves.__setitem__)
    found: dict[str, NodeParity] = {}
    known = {node.name: node for node in nodes}

    def judge(name: str, true_values: np.ndarray) -> None:
        if name in got:
            rounded = halves.pop(name) if yardstick is not None else given[name]
            node, value = known[name], got.pop(name)
            if node.orders in given and same_order(given[node.orders], given[name], value, node.dim):
                value = given[name]
            found[name] = row_of(node, true_values, given[name], rounded, value, precision, roundings_of(node))

    truth.locally(feed, given, judge)
    unseen = {
        node.name: "part of another node in the engine's program" if node.name not in wanted else "not reached"
        for node in nodes
        if node.name not in found
    }
    rows = tuple(found[node.name] for node in nodes if node.name in found)
    return Lockstep(rows, unseen, f"nodes computed one by one: {session.computed_with}")


def roundings_of(node: NodeInfo, terms: float = 0) -> float:
    """How many roundings a node may be away from float64, whatever PyTorch's own error is.

    terms: how many products are summed for an element; those of the node if 0.
    """
    # Roundings of a long sum add up as a random walk does, twice as far in the worst of a million elements.
    return max(ROUNDINGS_OF.get(node.target, ROUNDINGS), 2 * math.sqrt(terms or node.terms))


def same_order(values: np.ndarray, want: np.ndarray, got: np.ndarray, dim: int) -> bool:
    """Whether two orders show the same values: then they differ among equal ones only."""
    if want.shape != got.shape or got.ndim == 0 or got.size == 0:
        return False
    got = got.astype(np.int64)
    if got.min() < 0 or got.max() >= values.shape[dim]:
        return False
    ranked = np.sort(got, axis=dim)
    if (np.diff(ranked, axis=dim) == 0).any():
        return False  # one place twice
    return np.array_equal(np.take_along_axis(values, want, dim), np.take_along_axis(values, got, dim))


def row_of(
    node: NodeInfo,
    truth: np.ndarray,
    want: np.ndarray,
    yardstick: np.ndarray,
    got: np.ndarray,
    precision: str,
    roundings: float,
) -> NodeParity:
    """truth, want, yardstick: float64, what the others were given, and PyTorch at the port's precision."""
    row = NodeParity(
        node=node.name,
        target=node.target,
        module=node.origin.module,
        module_class=node.origin.module_class,
        source=str(node.origin) if node.origin.file else "",
        shape=tuple(want.shape),
        dtype=str(want.dtype),
        excess=math.inf,
        error=math.inf,
    )
    if want.dtype.kind in "biu":
        if want.shape == got.shape and want.dtype.kind in "iu":
            small = np.abs(want.astype(np.float64)) < _INT32
            want, got = want[small], got[small].astype(want.dtype, copy=False)
        result = compare(want, got, RELATIVE)
        return dataclasses.replace(row, excess=result.excess, error=result.error, fault=result.fault)
    result = compare(want, got, RELATIVE, dtype=got.dtype)
    if result.fault:
        return dataclasses.replace(row, fault=result.fault)
    torch_error, port_error = distance(truth, yardstick), distance(truth, got)
    allowed = max(AS_ACCURATE * torch_error, roundings * EPSILON[precision])
    return dataclasses.replace(
        row,
        excess=port_error / allowed,
        error=result.error,
        max_abs=result.max_abs,
        torch_error=torch_error,
        port_error=port_error,
        needed=port_error,
    )
