# SPDX-License-Identifier: Apache-2.0
"""Looks for the inputs on which a port is furthest from its original: random restarts and hill climbing."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from paritas.errors import ParitasError
from paritas.program import TensorSpec
from paritas.verify.inputs.generate import UNBOUNDED, Case, draw, holds_values, is_attention_mask, shapes_of, symbols
from paritas.verify.inputs.mutate import mutated, padding
from paritas.verify.inputs.sizes import Ways

PATIENCE = 25  # tries without a rise before another start
LONGEST = 150  # tries of one climb: below the tolerance what rises is rounding, and it rises for ever
LONG = 40  # the length up to which all are as likely
HOPELESS = 200  # starts that the original refuses, without one that it takes, before giving up


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long to search: so many seconds, or so many tries, or until the first of both is used up.

    Seconds are what a user waits for, tries what finds the same again. Raises `ParitasError` for what is no budget.
    """

    seconds: float = math.inf
    tries: int | None = None

    def __post_init__(self) -> None:
        if not self.seconds > 0 or (self.tries is not None and self.tries < 1):
            raise ParitasError(f"A search needs some seconds or tries, not {self.seconds} and {self.tries}.")
        if self.seconds == math.inf and self.tries is None:
            raise ParitasError("A search without an end: give it seconds or tries.")

    def __str__(self) -> str:
        parts = [f"{self.seconds:g} s"] if self.seconds < math.inf else []
        return " or ".join([*parts, f"{self.tries} tries"] if self.tries is not None else parts)


@dataclasses.dataclass(frozen=True)
class Score:
    """How bad one try is: the worst output's excess over its tolerance; infinite for a fault."""

    excess: float
    output: str = ""
    fault: str = ""
    unjudged: str = ""  # why such inputs prove nothing


class Refused(Exception):
    """The original does not take these inputs."""


Judge = Callable[[Case], Score]


@dataclasses.dataclass(frozen=True)
class Space:
    """Where to look: what inputs may be, and known cases to begin at.

    fixed: inputs that keep the values they have in `starts`. resize: whether shapes may be others than those of
    `starts`, and integers others than there.
    """

    specs: Sequence[TensorSpec]
    limits: Mapping[str, tuple[int, int]]
    starts: Sequence[Case]
    fixed: frozenset[str] = frozenset()
    resize: bool = True
    ways: Ways = dataclasses.field(default_factory=Ways)

    def free(self, spec: TensorSpec) -> bool:
        """Whether the values of this input may be changed."""
        if spec.value is not None or spec.name in self.fixed:
            return False
        return is_attention_mask(spec) or spec.dtype == "bool" or holds_values(spec)


@dataclasses.dataclass(frozen=True)
class Sought:
    """What a search did and found, as a report keeps it. `excess` is NaN where nothing could be judged."""

    budget: str
    seed: int
    seconds: float
    tries: int
    restarts: int
    refused: int  # tries that the original does not take
    unjudged: int  # tries on which PyTorch itself is too inaccurate to tell
    excess: float = math.nan
    case: str = ""  # the name of its rows in the report
    found: str = ""  # the shapes of the worst inputs
    output: str = ""
    fault: str = ""
    ended: str = ""  # why before its time
    kept: str = ""  # the regression input's file, or why there is none
    dropped: tuple[str, ...] = ()  # regression inputs that gave way to it

    def lines(self, directory: str = "DIR") -> list[str]:
        """What a report says of the search, and how to run it again."""
        rate = f", {self.tries / self.seconds:.1f}/s" if self.seconds > 0 else ""
        first = (
            f"search: {self.tries} tries in {self.seconds:.1f} s{rate}, {self.restarts} restarts, seed {self.seed}; "
            f"{self.refused} refused by the original, {self.unjudged} not judged"
        )
        lines = [first + (f"; ended early: {self.ended}" if self.ended else "")]
        if self.found:
            what = self.fault or f"{self.excess:.3g}x tolerance"
            lines.append(f"the worst it found: {what} in {self.output}, {self.found}")
        else:
            lines.append("it found no inputs on which the port is off by anything")
        if self.kept:
            lines.append(self.kept)
        lines += [f"dropped {name}, less bad than the others" for name in self.dropped]
        command = f"paritas verify {directory} --search {max(1, math.ceil(self.seconds))} --seed {self.seed}"
        exactly = f"port.verify(search=paritas.verify.Budget(tries={self.tries}), seed={self.seed})"
        return [*lines, f"again: {command}, or exactly: {exactly}"]


@dataclasses.dataclass(frozen=True)
class Found:
    """The worst inputs of a search, None where no try differs from the original by anything."""

    sought: Sought
    case: Case | None = None


def search(
    judge: Judge,
    space: Space,
    budget: Budget,
    *,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Found:
    """The inputs in `space` with the largest score, as far as `budget` goes.

    Starts at random and climbs: inputs are changed a little, and a change stays unless the score falls; after
    `PATIENCE` changes in vain it starts elsewhere. A fault ends the search: nothing is worse. The same seed looks at
    the same inputs in the same order, and the budget says how far. judge: raises `Refused` for inputs that
    the original does not take; what else it raises ends the search.
    """
    return _Search(judge, space, budget, seed, progress, clock).run()


class _Search:
    def __init__(
        self,
        judge: Judge,
        space: Space,
        budget: Budget,
        seed: int,
        progress: Callable[[str], None] | None,
        clock: Callable[[], float],
    ):
        self.judge, self.space, self.budget, self.seed = judge, space, budget, seed
        self.progress, self.clock, self.began = progress, clock, clock()
        self.tries = self.refused = self.unjudged = self.restarts = 0
        self.best = Score(0.0)
        self.worst: Mapping[str, np.ndarray] | None = None
        self.said = -math.inf
        self.free = [spec for spec in space.specs if space.free(spec)]
        self.ended = ""  # why before the budget is used up
        if not space.resize and not (self.free and space.starts):
            self.ended = "no input may be changed" if space.starts else "there is no input to begin with"

    def run(self) -> Found:
        while not self.over():
            self.climb(np.random.default_rng((self.seed, self.restarts)))
            self.restarts += 1
            if self.tries >= HOPELESS and self.refused == self.tries:
                self.ended = f"the original refuses all of {self.tries} inputs"
        seconds = self.clock() - self.began
        case = None
        if self.worst is not None:
            case = Case(f"search: worst of {self.tries} tries", self.worst, optional=True, searched=True)
        sought = Sought(
            str(self.budget), self.seed, seconds, self.tries, self.restarts, self.refused, self.unjudged,
            excess=self.best.excess if self.tries > self.refused + self.unjudged else math.nan,
            case=case.name if case else "",
            found=case.shapes if case else "",
            output=self.best.output,
            fault=self.best.fault,
            ended=self.ended,
        )  # fmt: skip
        return Found(sought, case)

    def over(self) -> bool:
        tries = self.budget.tries
        spent = tries is not None and self.tries >= tries
        return bool(self.ended) or spent or self.clock() - self.began >= self.budget.seconds

    def climb(self, generator: np.random.Generator) -> None:
        feed = start(self.space, generator)
        here = self.attempt(feed)
        stale, last = 0, self.tries + LONGEST
        while here is not None and stale < PATIENCE and self.tries < last and not self.over():
            other = self.changed(feed, generator)
            score = self.attempt(other)
            stale += 1
            if score is None or score.excess < here.excess:
                continue
            if score.excess > here.excess:
                stale = 0
            feed, here = other, score  # also where nothing rose: a plain has to be crossed

    def changed(self, feed: Mapping[str, np.ndarray], generator: np.random.Generator) -> dict[str, np.ndarray]:
        """The feed with one or two changes, each in one of the inputs that may be changed."""
        free = [spec for spec in self.free if feed[spec.name].size]
        result = dict(feed)
        for _ in range(1 + int(generator.integers(2))) if free else ():
            spec = free[int(generator.integers(len(free)))]
            result[spec.name] = mutated(spec, result[spec.name], generator)
        return result

    def attempt(self, feed: Mapping[str, np.ndarray]) -> Score | None:
        """The score of these inputs, and a note of it if it is the worst; None where they prove nothing."""
        self.tries += 1
        try:
            score = self.judge(Case("search", feed, optional=True, searched=True))
        except Refused:
            self.refused += 1
            score = None
        if score is not None and score.unjudged:
            self.unjudged += 1
            score = None
        if score is not None and score.excess > self.best.excess:
            self.best, self.worst = score, feed
            if math.isinf(score.excess):
                self.ended = "nothing is worse"
        self.tell()
        return score

    def tell(self) -> None:
        now = self.clock()
        if self.progress is None or now - self.said < 0.2:
            return
        self.said = now
        rate = self.tries / max(now - self.began, 1e-9)
        self.progress(
            f"search: {self.tries} tries, {rate:.1f}/s, {self.restarts} restarts, "
            f"{self.refused} refused, worst {self.best.excess:.3g}x tolerance"
        )


def start(space: Space, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Somewhere to climb from: new sizes, a known case's sizes with other values, or a known case."""
    kind = generator.random()
    if space.resize and (kind < 0.4 or not space.starts):
        return draw(space.specs, _shapes(space, generator), generator, _mask(generator))
    known = space.starts[int(generator.integers(len(space.starts)))].feed
    if space.resize and kind < 0.8:  # an engine that compiles for each shape has these ready
        shapes = {name: value.shape for name, value in known.items()}
        return draw(space.specs, shapes, generator, _mask(generator))
    return dict(known)


def _shapes(space: Space, generator: np.random.Generator) -> dict[str, tuple[int, ...]]:
    sizes = {}
    for symbol, is_batch in symbols(space.specs).items():
        low, high = space.limits.get(symbol, (1, UNBOUNDED))
        longest = 4 if is_batch else LONG
        uniform = int(generator.integers(low, min(high, max(low, longest)) + 1))
        turns = [size for size in _TURNS if low <= size <= high]
        turning = not is_batch and turns and generator.random() < 0.3
        sizes[symbol] = int(generator.choice(turns)) if turning else uniform
    return shapes_of(space.specs, space.ways.nearest(sizes, space.limits))


#: Around the widths of vectors and tiles, where kernels change their way.
_TURNS = (1, 2, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65)


def _mask(generator: np.random.Generator) -> Callable[[int, int], np.ndarray] | None:
    if generator.random() < 0.5:
        return None
    return lambda rows, columns: np.stack([padding(columns, generator) for _ in range(rows)])
