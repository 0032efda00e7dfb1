# SPDX-License-Identifier: Apache-2.0
"""Verification of a port that generates: the same calls, one after another, on the original, the port and the truth.

Each has a memory of its own, so that what one call leaves behind is compared by those after it.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from paritas.caches import inside
from paritas.errors import InputError, reason_of
from paritas.program import Manifest, TensorSpec
from paritas.run.session import Session, State
from paritas.run.state import ArrayState, new_state
from paritas.verify.compare import typical
from paritas.verify.inputs.generate import Case
from paritas.verify.inputs.scenarios import FEW, Call, Roles, Scenario, functional, play, scenarios, step_name, write
from paritas.verify.report.rows import Environment, OutputParity, StepParity
from paritas.verify.tolerance import AS_ACCURATE, EPSILON, HALF, Tolerance, whole_model
from paritas.verify.verify import Reference, Runner, verify

if TYPE_CHECKING:
    import torch

Array = np.ndarray
Answer = Mapping[int, Array] | Exception
Begin = Callable[[], State]

#: What a port writes by itself, and how many tokens: two rows, of which one is padded.
GREEDY, WRITTEN, PADDING, PROMPT = "greedy, each on its own", 12, (0, 2), 5


@dataclasses.dataclass(frozen=True)
class Played:
    """What came of it. unseen: scenario -> why it was not played. first: the one to diverge, to be looked into."""

    steps: tuple[StepParity, ...] = ()
    unseen: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    first: Case | None = None


@dataclasses.dataclass(frozen=True)
class Players:
    """Who plays. Runners and sessions take a feed with what is remembered and return it, as a port's session does.

    called: the port through its call. module: the original, where it can write by itself. yardstick: PyTorch at the
    port's half precision. exact: the original's own code in float64.
    """

    manifest: Manifest
    session: Session
    called: Session
    original: Runner
    truth: Reference
    reference: Reference
    yardstick: Runner | None = None
    module: torch.nn.Module | None = None
    exact: Runner | None = None

    def begin(self, runner: Runner | Session) -> Begin:
        return memory_of(runner, self.manifest)

    def of_port(self, scenario: Scenario) -> Begin:
        """The port's memory: inside its engine, where that keeps it, unless the scenario says otherwise."""
        return self.begin(self.called) if scenario.called else lambda: new_state(self.session, self.manifest)


def memory_of(runner: Runner | Session, manifest: Manifest) -> Begin:
    """What begins a generation of somebody who is given what is remembered, and returns it."""
    session = runner if hasattr(runner, "run") else _Runs(runner)
    return lambda: ArrayState(cast("Session", session), manifest)


class _Runs:
    """A function of feeds as a session."""

    precision = ""

    def __init__(self, runner: Runner) -> None:
        self.run = runner


def compare_generation(
    players: Players,
    example: Mapping[str, Array],
    *,
    tolerance: Tolerance | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    few: bool = False,
) -> Played:
    """Play every scenario, and let the port write by itself. Raises nothing for what either side cannot do.

    few: where a call takes long, those in which most can go wrong.
    """
    tell = progress or (lambda what: None)
    manifest = players.manifest
    try:
        roles = Roles(manifest, example)
    except InputError as error:
        return Played(notes=(f"verify: no generation was played: {str(error).rstrip('.')}",))
    specs, logits = told_by(manifest)
    unseen: dict[str, str] = {}
    notes: list[str] = []
    scripts: list[tuple[Scenario, list[Call], list[dict[int, Array]]]] = []
    every = scenarios(manifest)
    chosen = [one for one in every if one.name in FEW] if few else every
    if len(chosen) < len(every):
        text = f"each call reads all weights from their files, so {len(chosen)} of {len(every)} generations were played"
        notes.append(f"verify: {text}: {', '.join(one.name for one in chosen)}")
    for scenario in chosen:
        if scenario.longest > roles.largest:
            notes.append(_too_long(scenario.name, scenario.longest, roles.largest))
            continue
        tell(scenario.name)
        try:
            calls, wanted = write(scenario, roles, players.begin(players.original), logits, seed)
        except Exception as error:  # noqa: BLE001 - the original's own refusal, of any kind
            unseen[f'generation "{scenario.name}"'] = f"the original refuses it: {reason_of(error)}"
            continue
        scripts.append((scenario, calls, wanted))
    rows, refused = _judged(players, specs, logits, scripts, tolerance, tell)
    unseen |= refused
    if roles.writes and logits is not None:
        if roles.largest < PROMPT + WRITTEN:
            notes.append(_too_long(GREEDY, PROMPT + WRITTEN, roles.largest))
        else:
            tell(GREEDY)
            rows += _Freely(players, roles, logits, _bound(players.session, tolerance, rows)).rows(seed)
    return Played(
        tuple(rows), unseen, tuple(notes), _first(rows, [c for _, calls, _ in scripts for c in calls], players)
    )


def _first(rows: Sequence[StepParity], calls: Sequence[Call], players: Players) -> Case | None:
    """The first step that diverges, as a call that is given what the original remembers."""
    known = {call.name: call for call in calls}
    call = next((known[row.name] for row in rows if row.diverges and row.name in known), None)
    return None if call is None else Case(call.name, functional(call, players.manifest))


def step(
    manifest: Manifest, original: Runner, example: Mapping[str, Array], name: str, seed: int = 0
) -> dict[str, Array]:
    """The inputs of one step, with what the original remembers there. Raises `InputError` for a name of none."""
    roles = Roles(manifest, example)
    for scenario in scenarios(manifest):
        if name not in (step_name(scenario.name, at) for at in range(len(scenario.steps) + 1)):
            continue
        calls, _ = write(scenario, roles, memory_of(original, manifest), told_by(manifest)[1], seed)
        return functional(next(call for call in calls if call.name == name), manifest)
    names = [step_name(scenario.name, len(scenario.steps)) for scenario in scenarios(manifest)]
    raise InputError(f"There is no step {name!r}. The last ones are: {'; '.join(names)}.")


def _too_long(name: str, longest: int, largest: int) -> str:
    return f'verify: the generation "{name}" was not played: it has {longest} tokens, and this port takes {largest}'


def told_by(manifest: Manifest) -> tuple[dict[int, TensorSpec], int | None]:
    """The outputs that are no memory, by place, and that of the logits."""
    left_out = inside(manifest)
    specs = {at: spec for at, spec in enumerate(manifest.outputs) if at not in left_out}
    logits = next((at for at, s in specs.items() if s.name == "logits" and len(s.dims) == 3), None)
    return specs, logits


# --- the same tokens for all ---------------------------------------------------------------------


class _Answers:
    """What somebody answers to the calls of all scenarios, for who asks with a call's feed. Played once it is asked."""

    def __init__(self, precision: str, answer: Callable[[], dict[int, Sequence[Array] | Exception]]) -> None:
        self.precision = precision
        self._found = functools.cache(answer)

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        answer = self._found()[id(feed)]
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    def close(self) -> None:
        pass


def _judged(
    players: Players,
    specs: Mapping[int, TensorSpec],
    logits: int | None,
    scripts: Sequence[tuple[Scenario, list[Call], list[dict[int, Array]]]],
    tolerance: Tolerance | None,
    tell: Callable[[str], None],
) -> tuple[list[StepParity], dict[str, str]]:
    """A row for each call, ruled as outputs are, on tokens that are no padding; and why others have none."""
    precision = players.session.precision

    def answers(begin: Callable[[Scenario], Begin], by: str) -> dict[int, Sequence[Array] | Exception]:
        found: dict[int, Sequence[Array] | Exception] = {}
        for scenario, calls, _ in scripts:
            tell(f"{scenario.name}, {by}")
            for call, answer in zip(calls, play(calls, begin(scenario)), strict=True):
                found[id(call.feed)] = _seen(answer, call, specs)
        return found

    def of(runner: Any, at: str) -> Any:
        return _Answers(at, lambda: answers(lambda scenario: players.begin(runner), f"PyTorch in {at}"))

    wanted = {
        id(c.feed): _seen(w, c, specs) for _, calls, all_of in scripts for c, w in zip(calls, all_of, strict=True)
    }
    original = _Answers("float32", lambda: wanted)
    port = _Answers(precision, lambda: answers(players.of_port, "the port"))
    calls = [call for _, some, _ in scripts for call in some]
    report = verify(
        port,
        original.run,
        [Case(call.name, call.feed) for call in calls],
        outputs=list(specs.values()),
        environment=Environment(""),
        truth=of(players.truth, "float64"),
        reference=of(players.reference, "float32"),
        yardstick=of(players.yardstick, precision).run if players.yardstick is not None else None,
        exact=of(players.exact, "float64").run if players.exact is not None else None,
        tolerance=tolerance,
    )
    by_case: dict[str, list[OutputParity]] = {}
    for row in report.outputs:
        by_case.setdefault(row.case, []).append(row)
    rows = []
    refused: dict[str, str] = {}
    for call in calls:
        found = by_case.get(call.name, [])
        if not found:
            why = report.unseen.get(f'case "{call.name}"', "it has no outputs")
            refused.setdefault(f'generation "{call.scenario}"', f"at {call.name}: {why}")
            continue
        worst = max(found, key=lambda row: (row.diverges, *row.badness))
        tokens = None
        if logits is not None and not isinstance(port_says := port._found()[id(call.feed)], Exception):
            at = list(specs).index(logits)
            bound = _bound(players.session, tolerance, found)
            tokens = _tokens(original.run(call.feed)[at], list(port_says)[at], bound, _places(call.visible))
        rows.append(_row(call, worst, tokens))
    return rows, refused


def _seen(answer: Answer, call: Call, specs: Mapping[int, TensorSpec]) -> Sequence[Array] | Exception:
    """The outputs in their order; of those with a place for each new token, those of tokens that are no padding."""
    if isinstance(answer, Exception):
        return answer
    shape = call.visible.shape
    return [answer[at][call.visible] if answer[at].shape[:2] == shape else answer[at] for at in specs]


def _row(call: Call, worst: OutputParity, tokens: Tokens | None) -> StepParity:
    fault = worst.fault
    return StepParity(
        call.scenario,
        call.step,
        call.said,
        excess=worst.excess,
        error=worst.error,
        fault=fault,
        max_abs=worst.max_abs,
        torch_error=worst.torch_error,
        port_error=worst.port_error,
        unjudged=worst.unjudged,
        rule=worst.rule,
        **(dataclasses.asdict(tokens) if tokens is not None else {}),
    )


# --- tokens --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Tokens:
    """At how many places the most probable token was compared, at how many it is the same, and where it is a tie.

    parted: the first place where it is another one, in words.
    """

    tokens: int = 0
    same: int = 0
    ties: int = 0
    parted: str = ""


#: How far from the original's logits the port's may be: [places, vocabulary] -> the same shape.
Bound = Callable[[Array], Array]


def _bound(session: Session, tolerance: Tolerance | None, rows: Sequence[OutputParity | StepParity]) -> Bound:
    """The rule by which these rows were judged, as a distance for each element."""
    if session.precision in HALF and tolerance is None:
        errors = [row.torch_error for row in rows if math.isfinite(row.torch_error)]
        share = max(AS_ACCURATE * max(errors, default=0.0), EPSILON[session.precision])
        return lambda want: share * (typical(want) + np.abs(want))
    rule = tolerance or whole_model(session.precision)
    return lambda want: rule.atol + rule.rtol * np.abs(want) + rule.scaled * typical(want)


def _tokens(want: Array, got: Array, bound: Bound, places: Sequence[str]) -> Tokens:
    """Compare the most probable tokens of logits [places, vocabulary].

    A tie: each of the two may be off by what is allowed, so that no more than both together apart they cannot be told.
    """
    if want.shape != got.shape:
        return Tokens()
    wide = want.astype(np.float64)
    best, chosen = wide.argmax(-1), got.argmax(-1)
    allowed = bound(wide)
    each = np.arange(len(wide))
    apart = wide[each, best] - wide[each, chosen]
    together = allowed[each, best] + allowed[each, chosen]
    other = best != chosen
    tie = other & (apart <= together)
    off = np.flatnonzero(other & ~tie)
    parted = ""
    if off.size:
        at = int(off[0])
        parted = (
            f"{places[at]}: {int(best[at])} in the original, {int(chosen[at])} in the port; they are {apart[at]:.3g} "
            f"apart there, where {together[at]:.3g} is a tie"
        )
    return Tokens(len(wide), int((~other).sum()), int(tie.sum()), parted)


def _places(visible: Array) -> list[str]:
    """Of the tokens that are no padding, in words."""
    alone = visible.shape[1] == 1
    return [f"row {row}" if alone else f"row {row}, token {at}" for row, at in zip(*np.nonzero(visible), strict=True)]


# --- each on its own -----------------------------------------------------------------------------


class _Freely:
    """Both write what they think is next, until they part. The original by its own `generate`, if it has one."""

    def __init__(self, players: Players, roles: Roles, logits: int, bound: Bound) -> None:
        self._players, self._roles, self._logits, self._bound = players, roles, logits, bound

    def rows(self, seed: int) -> list[StepParity]:
        roles = self._roles
        prompt = roles.draw(len(PADDING), PROMPT, np.random.default_rng(seed))
        mask = np.arange(PROMPT)[None] >= np.array(PADDING)[:, None]
        try:
            wanted, by = self._generated(prompt, mask), "the original by its own generate()"
        except Exception:  # noqa: BLE001 - it has none, or one that wants more than tokens
            wanted, by = self._written(self._players.begin(self._players.original), prompt, mask), "step by step"
        fault = ""
        try:
            got = self._written(lambda: new_state(self._players.session, self._players.manifest), prompt, mask)
        except Exception as error:  # noqa: BLE001 - of any kind: it did not answer
            got, fault = [], f"the engine failed: {reason_of(error)}"
        same = np.ones(len(prompt), bool)
        rows = []
        for number, want in enumerate(wanted):
            said = f"token {number + 1} of {len(same)} rows" + (f"; {by}" if not number else "")
            if number >= len(got):
                rows.append(StepParity(GREEDY, number, said, fault=fault, tokens=int(same.sum())))
                break
            still = np.flatnonzero(same)
            w, g = want[still], got[number][still]
            found = _tokens(w, g, self._bound, [f"row {row}, after {number} equal ones" for row in still])
            off = float(np.abs(w.astype(np.float64) - g).max()) if w.size else 0.0
            scale = float(np.abs(w).mean()) if w.size else 0.0
            rows.append(
                StepParity(
                    GREEDY, number, said, excess=0.0, error=off / scale if scale else 0.0, max_abs=off,
                    **dataclasses.asdict(found),
                )
            )  # fmt: skip
            # Who has written another token has another text before him from here on.
            same[still] = w.argmax(-1) == g.argmax(-1)
            if not same.any():
                break
        return rows

    def _generated(self, prompt: Array, mask: Array) -> list[Array]:
        import torch
        from transformers import GenerationConfig

        from paritas.capture.streaming import reading

        module: Any = copy.copy(self._players.module)
        module.generation_config = (
            GenerationConfig()
        )  # whose habits, as a penalty for what is repeated, are no part of it
        with torch.no_grad(), reading():
            out = module.generate(
                torch.from_numpy(prompt),
                attention_mask=torch.from_numpy(mask.astype(np.int64)),
                max_new_tokens=WRITTEN,
                do_sample=False,
                use_cache=True,
                pad_token_id=0,
                return_dict_in_generate=True,
                output_logits=True,
            )
        found = [step.float().numpy() for step in out.logits]
        if len(found) != WRITTEN:
            raise InputError("it ended early")
        return found

    def _written(self, begin: Begin, prompt: Array, mask: Array) -> list[Array]:
        """The logits [rows, vocabulary] of each step, of which the best was given to the next."""
        state, tokens, found = begin(), prompt, []
        for _ in range(WRITTEN):
            answer = state.run(self._roles.feed(tokens, mask), tokens.shape[1])
            found.append(answer[self._logits][:, -1])
            tokens = found[-1].argmax(-1)[:, None].astype(prompt.dtype)
            mask = np.concatenate([mask, np.ones((len(mask), 1), bool)], 1)
        return found
