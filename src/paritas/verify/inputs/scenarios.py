# SPDX-License-Identifier: Apache-2.0
"""How a model that generates is used, call after call: what is played on the original and on its port."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from paritas import formulas
from paritas.caches import begun, is_state, new_tokens, remembered
from paritas.errors import InputError
from paritas.program import Manifest, TensorSpec
from paritas.run.session import State
from paritas.verify.inputs.generate import as_floats, is_attention_mask, is_whole

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Step:
    """A call that goes on. tokens: how many of each row; a single one is what the original would write next.

    rows: with whose memory each row goes on, () for its own. forget: how many of the last tokens are taken back before.
    handed_on: the memory leaves as arrays, and another generation begins with it.
    """

    tokens: int = 1
    rows: tuple[int, ...] = ()
    forget: int = 0
    handed_on: bool = False


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One generation. padding: how much of it each row has in front of its prompt. called: through the port's call,
    which takes what is remembered and returns it, instead of a memory inside."""

    name: str
    padding: tuple[int, ...]
    prompt: int
    steps: tuple[Step, ...]
    called: bool = False

    @property
    def longest(self) -> int:
        return self.prompt + sum(step.tokens - step.forget for step in self.steps)


SCENARIOS = (
    Scenario("single tokens", (0,), 5, (Step(),) * 5),
    Scenario("several tokens at once", (0, 0), 4, (Step(3), Step(), Step(5), Step())),
    Scenario("left padding", (0, 2, 5), 6, (Step(), Step(), Step(3), Step())),
    Scenario(
        "beams",
        (0, 0, 2),
        4,
        (Step(rows=(2, 0, 1)), Step(rows=(0, 0, 2)), Step(rows=(1, 1, 1)), Step(), Step(rows=(2, 1, 0))),
    ),
    Scenario("tokens taken back", (0, 1), 5, (Step(), Step(3, forget=2), Step())),
    Scenario("the cache handed on", (0, 1), 5, (Step(), Step(3, handed_on=True), Step())),
    Scenario("called with its cache", (0, 1), 5, (Step(), Step(3), Step()), called=True),
    Scenario("a longer text", (0,), 33, (Step(),) * 6),
)

#: In which most can go wrong: places are counted, rows are hidden, and rows are chosen.
FEW = ("several tokens at once", "left padding", "beams")


def scenarios(manifest: Manifest) -> tuple[Scenario, ...]:
    """Those that the original can play: from a state no token is taken back, and where it forgets its states unless
    one token follows, tokens follow one by one."""
    found: tuple[Scenario, ...] = SCENARIOS
    if any(map(is_state, remembered(manifest))):
        found = tuple(one for one in found if not any(step.forget for step in one.steps))
    if any(spec.forgets for spec in manifest.inputs):
        found = tuple(dataclasses.replace(one, steps=_single(one.steps)) for one in found)
    return found


def _single(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    return tuple(one for step in steps for one in (dataclasses.replace(step, tokens=1), *[Step()] * (step.tokens - 1)))


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a scenario, as the original's answers have made it.

    feed: an array per input that is no memory. visible: bool [batch, tokens], False for padding. past: what the
    original remembered before, in the order of the inputs that it is.
    """

    scenario: str
    step: int
    said: str
    feed: Mapping[str, Array]
    tokens: int
    visible: Array
    how: Step
    past: tuple[Array, ...] = ()

    @property
    def name(self) -> str:
        return step_name(self.scenario, self.step)


def step_name(scenario: str, step: int) -> str:
    return f"{scenario}, step {step}" if step else f"{scenario}, the prompt"


class Roles:
    """Which input of a port is what in a generation. Raises `InputError` for one that is not known in a next call."""

    def __init__(self, manifest: Manifest, example: Mapping[str, Array]) -> None:
        self.names = tuple(remembered(manifest))
        self._new = new_tokens(manifest)
        self.tokens: TensorSpec | None = None
        self._positions: list[TensorSpec] = []
        self._counted: list[TensorSpec] = []
        self._masks: list[TensorSpec] = []
        self._recent: list[TensorSpec] = []  # masks of the new tokens alone
        self._zeros: list[TensorSpec] = []
        self._same: dict[str, Array] = {}
        self._of_no_rows: set[str] = set()
        specs = [spec for spec in manifest.inputs if spec.name not in self.names]
        for spec in specs:
            self._take(spec, manifest, example)
        if self.tokens is None:
            raise InputError("none of its inputs is the new tokens")
        of_logits = [spec.dims[-1] for spec in manifest.outputs if spec.name == "logits"]
        known = (self.tokens.high, *(dim for dim in of_logits if isinstance(dim, int)))
        self._vocabulary: int = next((size for size in known if size), 2)
        self.largest: int = self._largest(manifest)

    def _take(self, spec: TensorSpec, manifest: Manifest, example: Mapping[str, Array]) -> None:
        new = self._new in spec.dims
        if spec.name.endswith("position_ids") and new:
            self._positions.append(spec)
        elif spec.name.endswith("cache_position") and spec.dims == (self._new,):
            self._counted.append(spec)
        elif new and spec.name.endswith("token_type_ids"):
            self._zeros.append(spec)
        elif new and spec.name.endswith(("input_ids", "inputs_embeds")) and self.tokens is None:
            self.tokens = spec
        elif is_attention_mask(spec) and self._counts_all(spec, manifest):
            self._masks.append(spec)
        elif is_attention_mask(spec) and spec.dims[1] == self._new:
            self._recent.append(spec)
        elif not new and spec.name in example:
            self._same[spec.name] = example[spec.name]
            if spec.dims and isinstance(spec.dims[0], int):
                self._of_no_rows.add(spec.name)
        else:
            raise InputError(f"nobody knows what {spec.name} is in a next call")

    def _counts_all(self, spec: TensorSpec, manifest: Manifest) -> bool:
        """Whether it has a place for each token that was seen, and not for those of an encoder."""
        if spec.name.startswith("encoder_"):
            return False
        own = [s.name for s in manifest.inputs if s.name.endswith("decoder_attention_mask")]
        if own:
            return spec.name in own
        past = next((s.dims[2] for s in manifest.inputs if s.name in self.names and not is_state(s.name)), None)
        if past is None:
            return False
        seen = [formulas.whole(dim, manifest.sizes) for dim in (past, self._new)]
        return formulas.whole(spec.dims[1], manifest.sizes) == sum(size or 0 for size in seen)

    def _largest(self, manifest: Manifest) -> int:
        """How many tokens there may be."""
        limits = [spec.high for spec in (*self._positions, *self._counted) if spec.high is not None]
        grown = [spec.dims[1] for spec in self._masks] + [self._new]
        limits += [manifest.limits[str(dim)] for dim in grown if str(dim) in manifest.limits]
        limits += [
            manifest.limits[str(s.dims[2])]
            for s in manifest.inputs
            if s.name in self.names and not is_state(s.name) and str(s.dims[2]) in manifest.limits
        ]
        return min(limits, default=2**31)

    @property
    def writes(self) -> bool:
        """Whether what it returns can be what it is given next."""
        return self.tokens is not None and is_whole(self.tokens.dtype)

    def draw(self, batch: int, tokens: int, generator: np.random.Generator) -> Array:
        """Tokens of each row at random: int [batch, tokens], or floats [batch, tokens, width]."""
        spec = self.tokens
        assert spec is not None
        if self.writes:
            low = min(3, self._vocabulary - 1)  # the first ones are signs of begin and end
            return generator.integers(low, self._vocabulary, (batch, tokens)).astype(spec.dtype)
        width = [dim for dim in spec.dims[2:] if isinstance(dim, int)]
        return as_floats(spec.dtype, np.asarray(generator.standard_normal((batch, tokens, *width)), np.float32))

    def feed(self, tokens: Array, mask: Array, rows: Array | None = None) -> dict[str, Array]:
        """The inputs of a call. tokens: [batch, new]. mask: bool [batch, seen and new]. rows: of what is the same in
        every call, as an encoder's outputs, those that each row goes on with."""
        assert self.tokens is not None
        batch, new = tokens.shape[:2]
        feed = {self.tokens.name: tokens}
        counted = np.maximum(mask.cumsum(-1) - 1, 0)[:, -new:]
        for spec in self._positions:
            sizes = [dim if isinstance(dim, int) else batch for dim in spec.dims[:-1]]
            of_rows = counted if sizes[-1] == batch else counted[:1]
            feed[spec.name] = np.broadcast_to(of_rows, (*sizes, new)).astype(spec.dtype, order="C")
        feed |= {spec.name: mask.astype(spec.dtype) for spec in self._masks}
        feed |= {spec.name: mask[:, -new:].astype(spec.dtype) for spec in self._recent}
        feed |= {spec.name: np.zeros((batch, new), spec.dtype) for spec in self._zeros}
        seen = mask.shape[1]
        feed |= {spec.name: np.arange(seen - new, seen).astype(spec.dtype) for spec in self._counted}
        chosen = np.arange(batch) if rows is None else rows
        for name, value in self._same.items():
            feed[name] = value[chosen % len(value)] if value.ndim and name not in self._of_no_rows else value
        return feed


def write(
    scenario: Scenario,
    roles: Roles,
    begin: Callable[[], State],
    logits: int | None,
    seed: int = 0,
) -> tuple[list[Call], list[dict[int, Array]]]:
    """The calls of a scenario, and what the original, a memory of which `begin` begins, answers to them.

    logits: the place of the output in which it says what it would write next; None if it does not, and everything
    is drawn at random.
    """
    generator = np.random.default_rng(seed)
    batch = len(scenario.padding)
    mask = np.arange(scenario.prompt)[None] >= np.array(scenario.padding)[:, None]
    of = np.arange(batch)
    state = begin()
    calls: list[Call] = []
    answers: list[dict[int, Array]] = []
    for number, step in enumerate((Step(scenario.prompt), *scenario.steps)):
        state = before(state, step, begin)
        if step.forget:
            mask = mask[:, : -step.forget]
        if step.rows:
            mask, of = mask[list(step.rows)], of[list(step.rows)]
        tokens = roles.draw(batch, step.tokens, generator)
        if number and step.tokens == 1 and roles.writes and logits is not None:
            tokens = _best(answers[-1][logits][:, -1], step.rows).astype(tokens.dtype)
        if number:
            mask = np.concatenate([mask, np.ones((batch, step.tokens), bool)], 1)
        feed = roles.feed(tokens, mask, of)
        past = tuple(array.copy() for array in state.arrays()) if state.length else ()
        answers.append(state.run(feed, step.tokens))
        visible = mask[:, -step.tokens :]
        calls.append(Call(scenario.name, number, _said(scenario, step, number), feed, step.tokens, visible, step, past))
    return calls, answers


def play(calls: list[Call], begin: Callable[[], State]) -> list[dict[int, Array] | Exception]:
    """What somebody else answers to the same calls: outputs by place, or the error that stopped it, from there on."""
    state = begin()
    answers: list[dict[int, Array] | Exception] = []
    for call in calls:
        try:
            state = before(state, call.how, begin)
            answers.append(state.run(call.feed, call.tokens))
        except Exception as error:  # noqa: BLE001 - of any kind: it did not answer
            return [*answers, *[error] * (len(calls) - len(answers))]
    return answers


def before(state: State, step: Step, begin: Callable[[], State]) -> State:
    """The memory with which a step goes on."""
    if step.handed_on:
        arrays = state.arrays()
        state = begin()
        state.load(arrays)
    if step.forget:
        state.crop(step.forget)
    if step.rows:
        state.reorder(np.array(step.rows))
    return state


def _best(logits: Array, rows: tuple[int, ...]) -> Array:
    """int [batch, 1]: of each row the best token; of rows that go on with the same memory the best, the second, ..."""
    chosen = rows or tuple(range(len(logits)))
    ranked = np.argsort(-logits, axis=-1, kind="stable")
    return np.array([[ranked[row, chosen[:at].count(row)]] for at, row in enumerate(chosen)])


def _said(scenario: Scenario, step: Step, number: int) -> str:
    """A call in words."""
    batch = len(scenario.padding)
    text = f"{batch} × {step.tokens} token{'s' if step.tokens > 1 else ''}"
    more = []
    if not number and any(scenario.padding):
        more.append(f"padded by {', '.join(map(str, scenario.padding))}")
    if step.rows:
        more.append(f"going on with rows {', '.join(map(str, step.rows))}")
    if step.forget:
        more.append(f"the last {step.forget} taken back")
    if step.handed_on:
        more.append("in another generation")
    return "; ".join([text, *more])


def functional(call: Call, manifest: Manifest) -> dict[str, Array]:
    """A call as one that is given what the original remembers there: the feed of a case."""
    past = dict(zip(remembered(manifest), call.past, strict=True)) if call.past else begun(manifest, call.feed)
    return {**call.feed, **past}
