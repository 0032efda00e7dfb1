# SPDX-License-Identifier: Apache-2.0
"""Ports that go on with a cache, wrong somewhere in it: `verify` plays generations and says at which step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import paritas
from paritas.errors import InputError
from paritas.verify import ParityReport
from paritas.verify.generation import _tokens
from paritas.verify.inputs.scenarios import SCENARIOS

pytest.importorskip("openvino")

TASK = "text-generation-with-past"
GREEDY = "greedy, each on its own"


@pytest.fixture(scope="module")
def llama() -> Any:
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    model = hf.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # larger ones, so that tokens are no accident of rounding
            parameter.mul_(3)
    return model


@pytest.fixture(scope="module")
def port(llama: Any) -> paritas.Port:
    return paritas.port(llama, task=TASK)


@pytest.fixture
def planted(port: paritas.Port) -> Iterator[Callable[..., ParityReport]]:
    """What verification says of the port when its memory is of that class, and its calls are answered so."""
    right = port.session

    def verified(memory: type[Memory], level: str = "outputs", **more: Any) -> ParityReport:
        port.session = WrongSession(right, memory)  # type: ignore[assignment]
        return port.verify(level=level, **more)

    yield verified
    port.session = right


class WrongSession:
    """A session whose generations remember as `memory` does."""

    def __init__(self, right: Any, memory: type[Memory]) -> None:
        self._right, self._memory = right, memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self._right, name)

    def state(self) -> Any:
        return self._memory(self._right.state())


class Memory:
    """As it should be."""

    def __init__(self, right: Any) -> None:
        self.right = right

    @property
    def length(self) -> int:
        return self.right.length

    def run(self, feed: Any, tokens: int) -> Any:
        return self.right.run(feed, tokens)

    def reorder(self, rows: np.ndarray) -> None:
        self.right.reorder(rows)

    def crop(self, tokens: int) -> None:
        self.right.crop(tokens)

    def arrays(self) -> Any:
        return self.right.arrays()

    def load(self, arrays: Any) -> None:
        self.right.load(arrays)


class IgnoresBeams(Memory):
    def reorder(self, rows: np.ndarray) -> None:
        pass


class TakesEachRowOnce(Memory):
    """Rows that are repeated are taken for others."""

    def reorder(self, rows: np.ndarray) -> None:
        left = [row for row in range(len(rows)) if row not in rows]
        again = [row in rows[:at] for at, row in enumerate(rows)]
        self.right.reorder(np.array([left.pop() if seen else row for row, seen in zip(rows, again, strict=True)]))


class DropsTheMask(Memory):
    def run(self, feed: Any, tokens: int) -> Any:
        return self.right.run({**feed, "attention_mask": np.ones_like(feed["attention_mask"])}, tokens)


class DropsTheMaskInSteps(Memory):
    def run(self, feed: Any, tokens: int) -> Any:
        mask = feed["attention_mask"]
        return self.right.run({**feed, "attention_mask": np.ones_like(mask)} if self.length else feed, tokens)


class ForgetsWhatItIsGiven(Memory):
    def load(self, arrays: Any) -> None:
        self.right.load([np.zeros_like(array) for array in arrays])


class KeepsWhatIsTakenBack(Memory):
    """The last tokens instead of the first."""

    def crop(self, tokens: int) -> None:
        arrays = [array[:, :, tokens:] for array in self.right.arrays()]
        self.right.load(arrays)


class CountsFromOne(Memory):
    """In steps: a shift of all positions is none to rotary ones."""

    def run(self, feed: Any, tokens: int) -> Any:
        return self.right.run({**feed, "position_ids": feed["position_ids"] + bool(self.length)}, tokens)


class DoesNotGoOn(Memory):
    """What was seen before is there and empty."""

    def run(self, feed: Any, tokens: int) -> Any:
        if self.length:
            self.right.load([np.zeros_like(array) for array in self.right.arrays()])
        return self.right.run(feed, tokens)


class WrongAtTheEnd(Memory):
    def run(self, feed: Any, tokens: int) -> Any:
        found = self.right.run(feed, tokens)
        return {0: found[0] * np.float32(1.01)} if self.length == 39 else found


class WrongTokenAtTheEnd(Memory):
    """Of what it writes by itself."""

    def run(self, feed: Any, tokens: int) -> Any:
        found = self.right.run(feed, tokens)
        if self.length == 16 and len(feed["input_ids"]) == 2:
            found[0][1, -1] = np.roll(found[0][1, -1], 1)
        return found


class WrongInSteps(Memory):
    """Of several tokens: the last sees what it should, the others nothing of each other."""

    def run(self, feed: Any, tokens: int) -> Any:
        found = self.right.run(feed, tokens)
        if tokens == 3:
            found[0][:, 0] = found[0][:, 1]
        return found


class Fails(Memory):
    def run(self, feed: Any, tokens: int) -> Any:
        if self.length == 9:
            raise RuntimeError("out of memory")
        return self.right.run(feed, tokens)


#: memory -> the first step that has to diverge
WRONG = {
    IgnoresBeams: "beams, step 1",
    TakesEachRowOnce: "beams, step 2",
    DropsTheMask: "left padding, the prompt",
    DropsTheMaskInSteps: "left padding, step 1",
    ForgetsWhatItIsGiven: "the cache handed on, step 2",
    KeepsWhatIsTakenBack: "tokens taken back, step 2",
    CountsFromOne: "single tokens, step 1",
    DoesNotGoOn: "single tokens, step 1",
    WrongAtTheEnd: "a longer text, step 6",
    WrongTokenAtTheEnd: f"{GREEDY}, step 11",
    WrongInSteps: "several tokens at once, step 1",
    Fails: "single tokens, step 5",
}


@pytest.mark.parametrize("memory", WRONG, ids=lambda memory: memory.__name__)
def test_a_wrong_memory_is_caught_at_its_step(memory: type[Memory], planted: Callable[..., ParityReport]) -> None:
    report = planted(memory)
    assert report.verdict == "diverges"
    assert all(row.agrees for row in report.outputs)  # each call by itself is right
    off = [row for row in report.generation if row.diverges]
    assert off[0].name == WRONG[memory], str(report)
    assert f"first to diverge: {off[0].name}" in str(report)
    assert f"- {off[0].name}" in report.to_markdown()


def test_a_right_one_agrees_step_by_step(port: paritas.Port) -> None:
    report = port.verify(level="outputs")
    assert report.verdict == "agrees", str(report)
    played = {row.scenario: row for row in report.generation}
    assert [*played] == [*(scenario.name for scenario in SCENARIOS), GREEDY]
    assert [played[s.name].step for s in SCENARIOS] == [len(s.steps) for s in SCENARIOS]
    assert played[GREEDY].step == 11 and "generate()" in str(report.generation[-12])
    assert all(row.tokens and row.same == row.tokens and not row.parted for row in report.generation)
    assert max(row.excess for row in report.generation) < 0.5
    text = report.to_markdown()
    assert "## Generation" in text and "| beams | 3 | 3 × 1 token; going on with rows 1, 1, 1 |" in text
    assert 'id="r0-generation"' in report.to_html()
    assert ParityReport.from_json(report.to_json()).to_json() == report.to_json()


def test_where_tokens_part_is_said(planted: Callable[..., ParityReport]) -> None:
    row = next(row for row in planted(WrongTokenAtTheEnd).generation if row.diverges)
    assert (row.tokens, row.same, row.ties) == (2, 1, 0)
    assert row.parted.startswith("row 1, after 11 equal ones: ") and "apart there, where" in row.parted


def test_tokens_that_are_as_probable_are_a_tie() -> None:
    want = np.array([[0.0, 1.0, 1.0 - 1e-4], [0.0, 1.0, 0.9]])
    got = want[:, [0, 2, 1]]
    found = _tokens(want, got, lambda wanted: np.full_like(wanted, 1e-4), ["first", "second"])
    assert (found.tokens, found.same, found.ties) == (2, 0, 1)
    assert found.parted == "second: 1 in the original, 2 in the port; they are 0.1 apart there, where 0.0002 is a tie"


def test_any_step_can_be_looked_into_node_by_node(port: paritas.Port) -> None:
    for name in ("left padding, the prompt", "beams, step 3"):
        report = port.verify(level="nodes", step=name)
        assert report.verdict == "agrees" and not report.generation, str(report)
        assert report.module_case == name and len(report.nodes) > 30 and not report.guilty
        assert {row.case for row in report.outputs} == {name}
    with pytest.raises(InputError, match="There is no step 'beams, step 9'"):
        port.verify(step="beams, step 9")


def test_the_step_that_diverges_is_looked_into(planted: Callable[..., ParityReport]) -> None:
    report = planted(WrongInSteps, level="nodes")
    assert report.module_case == "several tokens at once, step 1"
    assert not report.guilty  # it is the memory, and no node


def test_a_guilty_node_inside_a_step_is_named(port: paritas.Port, llama: Any, tmp_path: Path) -> None:
    port.save(tmp_path / "port")
    file = tmp_path / "port" / "openvino_model.xml"
    text = file.read_text()
    assert text.count('type="Cos"') == 1
    file.write_text(text.replace('type="Cos"', 'type="Sin"'))
    wrong = paritas.load(tmp_path / "port", allow_modified=True)
    report = wrong.verify(level="nodes", step="beams, step 3", original=llama)
    assert report.verdict == "diverges" and report.module_case == "beams, step 3"
    assert [row.target for row in report.guilty] == ["aten.cos.default"], str(report)


def test_a_step_is_for_what_goes_on(port: paritas.Port) -> None:
    linear = paritas.port(torch.nn.Linear(3, 3), inputs={"input": torch.ones(2, 3)})
    with pytest.raises(InputError, match="is for ports that go on with a cache"):
        linear.verify(step="beams, step 1")
    with pytest.raises(InputError, match="has inputs of its own"):
        port.verify({"input_ids": np.ones((1, 2), np.int64)}, step="beams, step 1")
