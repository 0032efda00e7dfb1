# SPDX-License-Identifier: Apache-2.0
"""What runs, and what it may be able to do beside: each capability is a Protocol that a session fulfils or does not.

A session says nothing of its capabilities: `isinstance(session, Observes)` asks whether it has the methods.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np


class Session(Protocol):
    """A loaded port.

    `run` takes one contiguous NumPy array per input of the manifest, by name, already checked, and
    returns the flat outputs in the manifest's order. bfloat16 crosses as float32, which holds it exactly.
    """

    @property
    def precision(self) -> str:
        """The arithmetic that really happens: "float32", "bfloat16", "float16"."""
        ...

    def run(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]: ...

    def close(self) -> None: ...


def runs_on(session: Session) -> str:
    """The device, as a report names it: "cpu"."""
    return str(getattr(session, "runs_on", "cpu")).lower()


@runtime_checkable
class Observes(Protocol):
    """Shows inner values of a run: verification then says in which module an error arises.

    `observe` returns node name -> value, for as many as it can of the nodes that leave a module.
    """

    #: What looking inside changes, in words: "outputs added to the graph".
    observed_with: str

    def observe(self, feed: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]: ...


@runtime_checkable
class StepsNodes(Protocol):
    """Computes each node by itself: verification then names the nodes that are wrong.

    `nodes` are those that it can compute. `lockstep` returns node name -> value for the nodes of `given`, each
    computed from the *given* values of those before it.
    """

    #: How, in words: "the graph cut at every node".
    computed_with: str

    def nodes(self) -> Collection[str]: ...

    def lockstep(self, feed: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]: ...


@runtime_checkable
class Cuts(Protocol):
    """Computes a part of the graph in one go: bisection then finds the smallest part that is wrong.

    `borders` are the tensors at which it can cut, each with the names of the nodes that it is the value of. `part`
    returns node name -> value for `outputs`, computed from the *given* values of other nodes.
    """

    #: How a part is computed, in words.
    cut_with: str

    #: The mode in which it is, where that is not the session's own; "" if it is.
    cut_mode: str

    #: Whether nodes outside of the part run too, so that a crash of one of them says nothing of the part.
    cut_runs_all: bool

    def borders(self) -> Sequence[frozenset[str]]: ...

    def part(
        self, feed: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], outputs: Collection[str]
    ) -> Mapping[str, np.ndarray]: ...


class State(Protocol):
    """What a network remembers of the tokens that it has seen: arrays [batch, heads, tokens, width].

    `run` computes on `tokens` more of each sequence and remembers them; it returns the outputs that are no part of
    the memory, as {index among the manifest's outputs: array}. One that can leave out what nobody wants has beside it
    `run_last(feed, tokens, last)`, with the scores of at least so many of the last tokens. `reorder` says which row
    each row goes on with; `crop` forgets the last tokens.
    """

    @property
    def length(self) -> int:
        """How many tokens of each sequence."""
        ...

    def run(self, feed: Mapping[str, np.ndarray], tokens: int) -> dict[int, np.ndarray]: ...

    def reorder(self, rows: np.ndarray) -> None: ...

    def crop(self, tokens: int) -> None: ...

    def arrays(self) -> list[np.ndarray]: ...

    def load(self, arrays: Sequence[np.ndarray]) -> None: ...


@runtime_checkable
class Remembers(Protocol):
    """Keeps keys and values of a generation inside: of a port whose cache is among its inputs."""

    def state(self) -> State:
        """A new generation: nothing is remembered yet."""
        ...


@runtime_checkable
class CalledInLoops(Protocol):
    """Prepares itself for each shape anew, so that it has to know of loops of others that change it in each turn."""

    #: Set by whoever calls it from a loop of its own, on other sizes each time.
    part_of_loop: bool


@dataclasses.dataclass(frozen=True)
class Gradients:
    """Gradients of one scalar by name, of the dtype of what they are gradients of; None where nothing depends on it."""

    parameters: Mapping[str, np.ndarray | None] = dataclasses.field(default_factory=dict)
    inputs: Mapping[str, np.ndarray | None] = dataclasses.field(default_factory=dict)
    nodes: Mapping[str, np.ndarray | None] = dataclasses.field(default_factory=dict)


class Differentiates(Session, Protocol):
    """A session of an engine whose adapter says `differentiates = True`.

    The scalar of `gradients` is the sum of outputs times cotangents, one per output, None where an output is no
    float.
    """

    def gradients(self, feed: Mapping[str, np.ndarray], cotangents: Sequence[np.ndarray | None]) -> Gradients: ...


class TakesVjps(Protocol):
    """Differentiates node by node.

    The scalar of `vjps` is the sum of nodes times cotangents, in which each node of `given`, once computed, is
    replaced by the value given for it: what arrives at a node is then the sum of its users' vector-Jacobian
    products, each of them evaluated at the given values and the given cotangents.
    """

    def vjps(
        self, feed: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], cotangents: Mapping[str, np.ndarray]
    ) -> Gradients: ...


@runtime_checkable
class StepsBackwards(TakesVjps, Protocol):
    """Differentiates each of its `nodes` by itself: verification then names those whose gradient is wrong."""

    def nodes(self) -> Collection[str]: ...


class Recorded(Protocol):
    """A forward that was computed and can be differentiated once.

    `outputs` are arrays of their own. `backward` is given a cotangent for each of them, None for 0.
    """

    outputs: list[np.ndarray]

    def backward(self, cotangents: Sequence[np.ndarray | None]) -> Gradients: ...


@runtime_checkable
class Trains(Protocol):
    """Is trained by another framework's loop: forward now, backward later.

    `weights` are the names of what it computes with. `share` makes arrays its weights, which it reads where they are
    from then on. `record` is one forward, to be differentiated by the weights that are not frozen and by the inputs
    `by`; `infer` one that is not. train: in training mode. drawn: by node, what is to stand in the place of what the
    engine would draw; `draws` says how it is put there. `weight` is the value of one. `recompute`, before anything is
    computed, lets what these modules compute be computed again in the backward, and not be kept; it returns those that
    are no module of the engine's.
    """

    draws: str

    def weights(self) -> Collection[str]: ...

    def weight(self, name: str) -> np.ndarray: ...

    def share(self, weights: Mapping[str, np.ndarray]) -> None: ...

    def recompute(self, modules: Collection[str]) -> frozenset[str]: ...

    def record(
        self,
        feed: Mapping[str, np.ndarray],
        by: Collection[str],
        *,
        train: bool,
        drawn: Mapping[str, np.ndarray] | None = None,
    ) -> Recorded: ...

    def infer(self, feed: Mapping[str, np.ndarray], *, train: bool) -> list[np.ndarray]: ...
