# SPDX-License-Identifier: Apache-2.0
"""Verification backwards: the gradient of every parameter, and of every node its vector-Jacobian product alone."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from paritas.errors import ParitasError, reason_of
from paritas.run.session import Differentiates, Gradients, StepsBackwards, TakesVjps
from paritas.verify.compare import RELATIVE, Comparison, compare
from paritas.verify.nodes import NodeInfo, roundings_of
from paritas.verify.report.rows import GradientParity, NodeGradientParity
from paritas.verify.tolerance import AS_ACCURATE, EPSILON, HALF, TOO_INACCURATE, whole_model
from paritas.verify.verify import CAPTURE_SLACK

Feed = Mapping[str, np.ndarray]
Cotangents = Sequence[np.ndarray | None]

#: (feed, cotangents) -> gradients: the eager original.
Differentiate = Callable[[Feed, Cotangents], Gradients]

#: Where a gradient is zero but for rounding, as that of attention's key biases is, PyTorch's own figure is chance:
#: what the port has in its place may be so many times as large.
RESIDUE = 10.0

#: Of the roundings that a node may have forwards, so many times are allowed backwards: a derivative is computed from
#: intermediate results, so that it has their roundings besides its own (those of a softmax enter its own twice).
BACKWARDS = 2

#: How often the port is run again to tell apart several users of one node; the rest stays undecided, and is listed.
TURNS = 24


class Differentiable(Differentiates, TakesVjps, Protocol):
    """A captured graph that can be differentiated as a whole and node by node: `run.torch.session.TorchSession`."""

    def walk(self, feed: Feed, see: Any = None, names: Any = None) -> list[np.ndarray]: ...


@dataclasses.dataclass(frozen=True)
class Flow:
    """What gradients flow through in a captured graph.

    parameters: those that require gradients, and inputs the floating ones. names: other names of tied parameters.
    nodes: node -> the nodes, parameters and inputs that it uses, in the graph's order.
    """

    parameters: tuple[str, ...]
    inputs: tuple[str, ...]
    nodes: Mapping[str, tuple[str, ...]]
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def users(self, seen: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Node of `seen` -> what of the parameters, inputs and other nodes of `seen` it is computed from."""
        among = frozenset(seen)
        through: dict[str, tuple[str, ...]] = {}  # a node that is not seen is one with its users
        found = {}
        for node, used in self.nodes.items():
            sources = tuple(dict.fromkeys(s for name in used for s in through.get(name, (name,))))
            if node in among:
                found[node] = sources
            else:
                through[node] = sources
        return found


@dataclasses.dataclass(frozen=True)
class Backwards:
    """What comparing backwards found; the fields are those of `ParityReport`."""

    gradients: tuple[GradientParity, ...] = ()
    unseen_gradients: Mapping[str, str] = dataclasses.field(default_factory=dict)
    gradient_case: str = ""
    gradient_nodes: tuple[NodeGradientParity, ...] = ()  # in backward order
    unseen_gradient_nodes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    gradient_rule: str = ""


def cotangents_of(outputs: Sequence[np.ndarray], seed: int) -> list[np.ndarray | None]:
    """A random direction for each floating output: standard normal, of its shape and dtype."""
    generator = np.random.default_rng(seed)
    return [
        np.asarray(generator.standard_normal(value.shape), value.dtype) if value.dtype.kind == "f" else None
        for value in outputs
    ]


def gradient_distance(truth: np.ndarray, got: np.ndarray) -> float:
    """How far a gradient is from float64, max |got - truth| / (mean |truth| + |truth|), over what is finite in both.

    `compare.distance` takes a small element among few for the rest beside a mask's fill. Gradients have no fill.
    """
    true_values, found = truth.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(true_values) & np.isfinite(found)
    true_values, found = true_values[finite], found[finite]
    off = np.abs(found - true_values)
    if not off.any():
        return 0.0
    size = np.abs(true_values)
    mean = float(size.mean())
    return float((off / (mean + size)).max()) if mean else math.inf


# --- parameters ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Sides:
    """One gradient, from everyone who computed it; None where nothing depends on it."""

    want: np.ndarray | None  # the original, fp32
    captured: np.ndarray | None  # the captured graph, fp32
    truth: np.ndarray | None  # the captured graph, float64
    yardstick: np.ndarray | None  # PyTorch at the port's precision
    got: np.ndarray | None  # the port


def compare_gradients(
    session: Differentiates,
    original: Differentiate,
    reference: Differentiable,
    truth: Differentiable,
    feed: Feed,
    flow: Flow,
    *,
    case: str,
    yardstick: Differentiate | None = None,
    seed: int = 0,
) -> Backwards:
    """Compare the gradients of a random combination of the outputs by every parameter and floating input.

    reference, truth: the captured graph in fp32 and in float64. yardstick: PyTorch at the port's half precision.
    A gradient agrees if its distance from float64 is at most `AS_ACCURATE` times PyTorch's own, or what the whole
    model's tolerance allows outputs. Raises what PyTorch raises.
    """
    cotangents = cotangents_of(reference.run(feed), seed)
    names = [*flow.parameters, *flow.inputs]
    if not names or all(cotangent is None for cotangent in cotangents):
        why = "no parameter requires gradients and no input is a float" if not names else "no output is a float"
        return Backwards(unseen_gradients={"all gradients": why}, gradient_case=case)
    want = _named(original(feed, cotangents), flow)
    captured, true_values = (_named(one.gradients(feed, cotangents), flow) for one in (reference, truth))
    rounded = _named(yardstick(feed, cotangents), flow) if yardstick is not None else want
    precision = session.precision
    if all(value is None for value in want.values()):
        why = "nothing in the original depends on a parameter or floating input: is its forward under no_grad?"
        return Backwards(unseen_gradients={"all gradients": why}, gradient_case=case)
    try:
        got = _named(session.gradients(feed, cotangents), flow)
    except Exception as error:  # noqa: BLE001 - PyTorch could, the port could not: of whatever kind, a divergence
        fault = f"the engine failed: {reason_of(error)}"
        rows = tuple(_blank(name, want.get(name), flow, fault) for name in names)
        return Backwards(rows, gradient_case=case, gradient_rule=_rule(precision))
    rows = tuple(
        _row(
            name,
            _Sides(want.get(name), captured.get(name), true_values.get(name), rounded.get(name), got.get(name)),
            flow,
            precision,
        )
        for name in names
    )
    return Backwards(_with_usual(rows, precision), gradient_case=case, gradient_rule=_rule(precision))


def _named(found: Gradients, flow: Flow) -> dict[str, np.ndarray | None]:
    parameters = {flow.names.get(name, name): value for name, value in found.parameters.items()}
    return {**parameters, **found.inputs}


def _rule(precision: str) -> str:
    base = f"{_base(precision):g}" if precision not in HALF else "the median parameter's, or one rounding"
    return (
        f"|got-float64| / (mean|float64| + |float64|) <= max({AS_ACCURATE:g} * PyTorch's own, {base}); "
        f"{RESIDUE:g} times where PyTorch's own gradient is rounding alone"
    )


def _base(precision: str) -> float:
    return EPSILON[precision] if precision in HALF else whole_model(precision).scaled


def _blank(name: str, want: np.ndarray | None, flow: Flow, fault: str = "") -> GradientParity:
    kind = "parameter" if name in flow.parameters else "input"
    return GradientParity(name, kind, () if want is None else tuple(want.shape), fault=fault)


def _row(name: str, sides: _Sides, flow: Flow, precision: str) -> GradientParity:
    want, got, truth = sides.want, sides.got, sides.truth
    row = _blank(name, want, flow)
    if want is None:
        if got is None or not got.any():
            return dataclasses.replace(row, excess=0.0, error=0.0)
        return dataclasses.replace(row, shape=tuple(got.shape), fault="a gradient where the original has none")
    if got is None:
        return dataclasses.replace(row, fault="no gradient: frozen here, or missing")
    result = compare(want, got, RELATIVE, dtype=got.dtype)
    if result.fault:
        return dataclasses.replace(row, fault=result.fault)
    wrong = _wrong_capture(sides)
    if truth is None or wrong:
        return _judged(row, result, fault=wrong or "no gradient in the captured graph: look at the capture")
    torch_error = max(gradient_distance(truth, side) for side in (sides.yardstick, sides.captured) if side is not None)
    if sides.yardstick is want or sides.yardstick is None:
        torch_error = max(torch_error, gradient_distance(truth, want))
    port_error = gradient_distance(truth, got)
    return _judged(row, result, port_error / _allowed(torch_error, precision), torch_error, port_error)


def _wrong_capture(sides: _Sides) -> str:
    """The truth must be the original's truth, or a capture that lost a gradient would pass as one."""
    assert sides.want is not None
    if sides.truth is None or sides.captured is None:
        return "the captured graph has no such gradient: look at the capture first"
    off = gradient_distance(sides.truth, sides.want)
    if off <= max(CAPTURE_SLACK, RESIDUE * gradient_distance(sides.truth, sides.captured)):
        return ""
    return f"the captured graph's gradient is not the original's ({off:.2g} away): look at the capture first"


def _allowed(torch_error: float, precision: str) -> float:
    return max((RESIDUE if torch_error > TOO_INACCURATE else AS_ACCURATE) * torch_error, _base(precision))


def _judged(
    row: GradientParity,
    result: Comparison,
    excess: float = math.inf,
    torch_error: float = math.nan,
    port_error: float = math.nan,
    fault: str = "",
) -> GradientParity:
    return dataclasses.replace(
        row,
        excess=excess,
        error=result.error,
        fault=fault,
        max_abs=result.max_abs,
        torch_error=torch_error,
        port_error=port_error,
    )


def _with_usual(rows: tuple[GradientParity, ...], precision: str) -> tuple[GradientParity, ...]:
    """In half precision a few elements may be exact in PyTorch by luck: the yardstick is never below the median."""
    known = sorted(row.torch_error for row in rows if not row.fault and math.isfinite(row.torch_error))
    if precision not in HALF or not known:
        return rows
    usual = known[len(known) // 2]
    return tuple(
        row
        if row.fault or math.isnan(row.torch_error)
        else dataclasses.replace(row, excess=row.port_error / _allowed(max(row.torch_error, usual), precision))
        for row in rows
    )


# --- nodes ---------------------------------------------------------------------------------------


def compare_vjps(
    session: Differentiates,
    reference: Differentiable,
    truth: Differentiable,
    feed: Feed,
    flow: Flow,
    nodes: Sequence[NodeInfo],
    *,
    half: TakesVjps | None = None,
    seed: int = 0,
) -> tuple[tuple[NodeGradientParity, ...], dict[str, str]]:
    """Compare each node's vector-Jacobian product, of a random vector, at the reference's values: (rows, unseen).

    Every node that the engine can replace becomes a variable with the reference's value, so that what arrives at
    it are the products of its users alone. One pass gives all sums; users of a sum that is off are then taken by
    themselves. A product agrees if its distance from float64 is at most `AS_ACCURATE` times PyTorch's own or
    `BACKWARDS` times the roundings that it may have forwards, more where long sums are taken. Rows are in backward
    order, which is the order in which a wrong gradient spreads. Raises what PyTorch raises.
    """
    flowing = [node for node in nodes if node.name in flow.nodes]
    precision = session.precision
    if not isinstance(session, StepsBackwards):
        return (), {node.name: "the engine does not show its nodes" for node in flowing}
    seen = frozenset(session.nodes())
    given: dict[str, np.ndarray] = {}
    reference.walk(feed, given.__setitem__, seen & {node.name for node in nodes})
    # Complex values are left as they are: they are one with the nodes that make reals of them.
    given = {name: value for name, value in given.items() if value.dtype.kind != "c"}
    uses = flow.users(given)
    every = _Pass(session, precision, reference, truth, half, feed, flow, given, seed)
    infos = {node.name: node for node in flowing}
    sums = every.run(uses)
    if isinstance(sums, str):
        return (), {node.name: sums for node in flowing}

    users: dict[str, list[str]] = {}
    for node, sources in uses.items():
        for source in sources:
            users.setdefault(source, []).append(node)
    edges = _Edges(every, infos, uses)
    off = {source for source in users if not edges.sum_agrees(source, users[source], sums)}
    accused = [node for node in reversed(uses) if off & set(uses[node])]
    certain = [node for node in accused if all(len(users[s]) == 1 for s in uses[node] if s in off)]
    turns = _turns([node for node in accused if node not in certain], uses, off)
    found = {node: edges.row(node, sums) for node in uses if node not in accused or node in certain}
    unseen: dict[str, str] = {}
    for number, turn in enumerate(turns):
        alone = every.run(turn) if number < TURNS else "one of several users of a wrong gradient; not told apart"
        for node in turn:
            if isinstance(alone, str):
                unseen[node] = alone
            else:
                found[node] = edges.row(node, alone)
    rest = [node.name for node in flowing if node.name not in found and node.name not in unseen]
    unseen |= dict.fromkeys(rest, "part of another node in the engine's program")
    return tuple(found[node] for node in reversed(uses) if node in found), unseen


def _turns(accused: Sequence[str], uses: Mapping[str, tuple[str, ...]], off: set[str]) -> list[list[str]]:
    """Groups of nodes of which no two use the same one of `off`."""
    turns: list[tuple[list[str], set[str]]] = []
    for node in accused:
        mine = off & set(uses[node])
        for members, taken in turns:
            if not taken & mine:
                members.append(node)
                taken |= mine
                break
        else:
            turns.append(([node], set(mine)))
    return [members for members, _ in turns]


@dataclasses.dataclass(frozen=True)
class _Arrived:
    """What arrived at every variable, computed by everyone."""

    truth: Mapping[str, np.ndarray | None]
    want: Mapping[str, np.ndarray | None]  # PyTorch in fp32
    yardstick: Mapping[str, np.ndarray | None]  # PyTorch at the port's precision
    got: Mapping[str, np.ndarray | None]


@dataclasses.dataclass(frozen=True)
class _Pass:
    session: TakesVjps
    precision: str
    reference: TakesVjps
    truth: TakesVjps
    half: TakesVjps | None
    feed: Feed
    flow: Flow
    given: Mapping[str, np.ndarray]
    seed: int

    def run(self, nodes: Iterable[str]) -> _Arrived | str:
        """With a random cotangent for each of `nodes`, and none for the others; or why the engine could not."""
        cotangents = {name: self._cotangent(name) for name in nodes}
        try:
            got = self._arrived(self.session, cotangents)
        except Exception as error:  # noqa: BLE001 - whatever an engine does when taken apart, the parameters rule
            return f"the engine failed: {reason_of(error)}"
        want, truth = self._arrived(self.reference, cotangents), self._arrived(self.truth, cotangents)
        yardstick = self._arrived(self.half, cotangents) if self.half is not None else want
        return _Arrived(truth, want, yardstick, got)

    def _arrived(self, side: TakesVjps, cotangents: Feed) -> dict[str, np.ndarray | None]:
        found = side.vjps(self.feed, self.given, cotangents)
        return {**_named(found, self.flow), **found.nodes}

    def _cotangent(self, name: str) -> np.ndarray:
        # The original's own are zero in many places, and cancel in a bias of keys: a random one hides nothing.
        value = self.given[name]
        generator = np.random.default_rng((self.seed, zlib.crc32(name.encode())))
        return np.asarray(generator.standard_normal(value.shape), value.dtype)


@dataclasses.dataclass(frozen=True)
class _Edges:
    """What a node's product with its cotangent is to each thing that it uses."""

    every: _Pass
    infos: Mapping[str, NodeInfo]
    uses: Mapping[str, tuple[str, ...]]

    def sum_agrees(self, source: str, users: Sequence[str], arrived: _Arrived) -> bool:
        return all(self._edge(user, source, arrived).agrees for user in users)

    def row(self, node: str, arrived: _Arrived) -> NodeGradientParity:
        """The worst of a node's products."""
        rows = [self._edge(node, source, arrived) for source in self.uses[node]]
        return max(rows, key=lambda row: row.badness)

    def _edge(self, node: str, source: str, arrived: _Arrived) -> NodeGradientParity:
        info, value = self.infos[node], self.every.given[node]
        row = NodeGradientParity(
            node=node,
            target=info.target,
            module=info.origin.module,
            module_class=info.origin.module_class,
            wrt=source,
            excess=math.inf,
            error=math.inf,
            source=str(info.origin) if info.origin.file else "",
        )
        truth, want, yardstick, got = (
            side.get(source) for side in (arrived.truth, arrived.want, arrived.yardstick, arrived.got)
        )
        if truth is None or want is None or yardstick is None:
            if got is None or not got.any():
                return dataclasses.replace(row, excess=0.0, error=0.0)
            return dataclasses.replace(row, shape=tuple(got.shape), fault="a gradient where the original has none")
        row = dataclasses.replace(row, shape=tuple(truth.shape), dtype=str(want.dtype))
        if got is None:
            return dataclasses.replace(row, fault="no gradient")
        result = compare(want, got, RELATIVE, dtype=got.dtype)
        if result.fault:
            return dataclasses.replace(row, fault=result.fault)
        torch_error, port_error = gradient_distance(truth, yardstick), gradient_distance(truth, got)
        # An element of the gradient is a sum over all elements of the value that it went into.
        terms = max(1.0, info.terms * value.size / max(truth.size, 1))
        roundings = roundings_of(info, terms)
        within = RESIDUE if torch_error > TOO_INACCURATE else AS_ACCURATE
        allowed = max(within * torch_error, BACKWARDS * roundings * EPSILON[self.every.precision])
        return dataclasses.replace(
            row,
            excess=port_error / allowed,
            error=result.error,
            max_abs=result.max_abs,
            torch_error=torch_error,
            port_error=port_error,
        )


def compare_backwards(
    session: Differentiates,
    original: Differentiate,
    reference: Differentiable,
    truth: Differentiable,
    feed: Feed,
    flow: Flow,
    nodes: Sequence[NodeInfo],
    *,
    case: str,
    yardstick: Differentiate | None = None,
    half: TakesVjps | None = None,
    seed: int = 0,
) -> Backwards:
    """`compare_gradients`, and where there was something to compare, `compare_vjps`. What PyTorch refuses is unseen."""
    try:
        found = compare_gradients(
            session, original, reference, truth, feed, flow, case=case, yardstick=yardstick, seed=seed
        )
    except ParitasError as error:
        return Backwards(unseen_gradients={"all gradients": str(error)}, gradient_case=case)
    if not found.gradients:
        return found
    try:
        rows, unseen = compare_vjps(session, reference, truth, feed, flow, nodes, half=half, seed=seed)
    except ParitasError as error:
        rows, unseen = (), {"all nodes": f"the reference failed: {error}"}
    return dataclasses.replace(found, gradient_nodes=rows, unseen_gradient_nodes=unseen)
