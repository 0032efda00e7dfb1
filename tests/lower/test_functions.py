# SPDX-License-Identifier: Apache-2.0
"""What functions of the original computed is a function of the generated file, called where the original calls it."""

from __future__ import annotations

import ast
from collections.abc import Callable

import pytest
import torch
from torch import nn

import paritas
from paritas.capture import capture
from paritas.lower.mindspore.check import grammar
from paritas.lower.mindspore.write.module import generate

X = torch.randn(2, 5, 4)


def halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    first = x[..., :2] * 2
    second = x[..., 2:] + 1
    return second, first


def turned(x: torch.Tensor) -> torch.Tensor:
    left, right = x[..., :2], x[..., 2:]
    return torch.cat((-right, left), dim=-1)


def one_line(x: torch.Tensor) -> torch.Tensor:
    return (x * 2).tanh() + 1


def rotary(q: torch.Tensor, k: torch.Tensor, angle: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    q_embed = q * angle + turned(q) * angle
    k_embed = k * angle + turned(k) * angle
    return q_embed, k_embed


def in_order(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    x = x[:, order] * 2
    return x + 1


def scaled_by(scale: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    def inner(values: torch.Tensor) -> torch.Tensor:
        larger = values * scale
        return larger.tanh()

    return inner


class ByPosition(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        upper, lower = halves(x)
        return upper - lower


class Nested(nn.Module):
    def forward(self, states: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
        query, key = states + 1, states - 1
        query, key = rotary(query, key, angle)
        return query @ key.transpose(1, 2)


class OnOneLine(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = one_line(x), one_line(x + 1)
        return a * b + turned(x) * turned(b)


class Closure(nn.Module):
    def forward(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        return scaled_by(factor)(x) + scaled_by(factor * 2)(x + 1)


class NeedsItsCell(nn.Module):
    """A method that reads a weight stays where it is called, and what it calls is a function all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))
        self.linear = nn.Linear(4, 4)

    def mixed(self, x: torch.Tensor) -> torch.Tensor:
        x = turned(x) * self.weight
        return self.linear(x) + turned(x + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mixed(x) - self.mixed(x * 2)


class AsksForTraining(nn.Module):
    """What a cell in training computes otherwise stays in the cell."""

    def forward(self, x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        x = turned(x)
        return in_order(x, order) - x


class Recursive(nn.Module):
    def down(self, x: torch.Tensor, depth: int) -> torch.Tensor:
        x = x * 2 + depth
        return self.down(x, depth - 1) if depth else x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(x, 3)


class Shadows(nn.Module):
    """Variables called as the functions are, and a function called as the generator's own are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned_x = turned(x)
        one_line = turned_x + 1
        rotary = one_line * 2
        turned_again = turned(rotary)
        return softmax(turned_again) + rotary


def softmax(x: torch.Tensor) -> torch.Tensor:
    x = x - 1
    return torch.softmax(x * 2, -1)


class Loop(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = turned(x) + 1
        return x


class Sizes(nn.Module):
    """A size that only a tensor inside a function shows, and one that is read often."""

    def positions(self, x: torch.Tensor) -> torch.Tensor:
        longer = torch.cat((x, x), 1)
        return torch.arange(longer.shape[1]) * 2 + longer.shape[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        y = x.reshape(batch * length, 4).reshape(batch, length, 2, 2)
        return y.sum((2, 3)).reshape(length, batch).sum() + self.positions(x).sum()


class SizesOfValues(nn.Module):
    """How many elements a mask selects is first the size of a part of an expression, and is asked for behind it."""

    def chosen(self, x: torch.Tensor, row: int) -> torch.Tensor:
        places = torch.nonzero(x[row, :, 0] > 0).flatten()
        y = turned(x[row, places]) * 2
        return nn.functional.pad(y, (0, 0, 0, x.shape[1] - y.shape[0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.chosen(x, 0), self.chosen(x, 1)])


CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, torch.Tensor]]] = {
    "by position": (ByPosition, {"x": X}),
    "nested": (Nested, {"states": X, "angle": torch.randn(2, 5, 4)}),
    "on one line": (OnOneLine, {"x": X}),
    "closure": (Closure, {"x": X, "factor": torch.randn(4)}),
    "needs its cell": (NeedsItsCell, {"x": X}),
    "asks for training": (AsksForTraining, {"x": X, "order": torch.tensor([4, 2, 0, 1, 3])}),
    "recursive": (Recursive, {"x": X}),
    "shadows": (Shadows, {"x": X}),
    "loop": (Loop, {"x": X}),
    "sizes": (Sizes, {"x": X}),
    "sizes of values": (lambda: nn.Sequential(SizesOfValues()), {"input": X.abs() - X.new_tensor([0.5, 0, 0, 0])}),
}


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    torch.manual_seed(0)
    found = {name: generate(capture(make().eval(), inputs)).source for name, (make, inputs) in CASES.items()}
    for source in found.values():
        grammar.check(source, "module")
    return found


def _functions(source: str) -> dict[str, ast.FunctionDef]:
    return {n.name: n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}


def _called(source: str, name: str) -> int:
    return sum(
        isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == name
        for n in ast.walk(ast.parse(source))
    )


def test_results_have_the_names_that_the_caller_gives_them(sources: dict[str, str]) -> None:
    assert "upper, lower = halves(x)" in sources["by position"]
    assert "return second, first" in sources["by position"]


def test_functions_call_functions_and_are_written_once(sources: dict[str, str]) -> None:
    source = sources["nested"]
    assert "query, key = rotary(query, key, angle)" in source
    rotary = ast.unparse(_functions(source)["rotary"])
    assert rotary.startswith("def rotary(q, k, angle):")
    assert "q_embed = q * angle + turned(q) * angle" in rotary
    assert "k_embed = k * angle + turned(k) * angle" in rotary
    assert _called(source, "turned") == 2


def test_two_calls_by_one_statement_are_two(sources: dict[str, str]) -> None:
    assert _called(sources["on one line"], "one_line") == 2
    assert _called(sources["on one line"], "turned") == 2


def test_what_a_closure_reads_is_an_argument(sources: dict[str, str]) -> None:
    assert _called(sources["closure"], "inner") == 2
    assert {a.arg for a in _functions(sources["closure"])["inner"].args.args} == {"values", "scale"}


def test_what_needs_its_cell_is_no_function(sources: dict[str, str]) -> None:
    source = sources["needs its cell"]
    assert set(_functions(source)) == {"dense", "turned"} and _called(source, "turned") == 4


def test_no_function_reads_a_cell(sources: dict[str, str]) -> None:
    assert "self.training" in sources["asks for training"]
    for source in sources.values():
        for function in _functions(source).values():
            assert not any(isinstance(n, ast.Name) and n.id == "self" for n in ast.walk(function)), function.name


def test_a_function_that_calls_itself_is_no_function_of_itself(sources: dict[str, str]) -> None:
    for name, function in _functions(sources["recursive"]).items():
        assert _called(ast.unparse(function), name) == 0


def test_no_variable_hides_a_function(sources: dict[str, str]) -> None:
    source = sources["shadows"]
    bound = {n.id for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    assert not bound & set(_functions(source))
    assert _called(source, "turned") == 2


def test_a_loop_calls_it_again(sources: dict[str, str]) -> None:
    assert _called(sources["loop"], "turned") == 3


@pytest.mark.parametrize("name", CASES)
def test_it_computes_the_same_and_each_node_can_be_seen(name: str) -> None:
    pytest.importorskip("mindspore")
    make, inputs = CASES[name]
    torch.manual_seed(0)
    model = make().eval()
    port = paritas.port(model, engine="mindspore", mode="pynative", inputs=inputs)
    with torch.no_grad():
        torch.testing.assert_close(port(**inputs), model(**inputs), rtol=1e-5, atol=1e-5)
    steps = port.artifact.manifest.settings["steps"]
    functions = [calls for path, calls in steps.items() if path.endswith("()")]
    inside = {node for calls in functions for call in calls for _, nodes in call for _, node in nodes}
    assert inside, steps
    report = port.verify(inputs, original=model, level="nodes")
    assert report.verdict == "agrees", str(report)
    assert inside <= {row.node for row in report.nodes}
