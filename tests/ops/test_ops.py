# SPDX-License-Identifier: Apache-2.0
"""One body for every case of every lowering, on every engine; and what a lowering must be like."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from cases import CASES
from making import Case, case, matrix, nan, program_of, vector
from packs import Packs
from running import failures, is_missing
from under_test import ENGINES, MINDSPORE, OPENVINO, UnderTest

from paritas.capture import capture
from paritas.errors import InputError, LoweringError, UnsupportedOps
from paritas.lower import registry
from paritas.lower.registry import lowerings, lowers, preflight

pytest.importorskip("mindspore")


PYNATIVE, GRAPH = (dataclasses.replace(MINDSPORE, modes=(mode,)) for mode in ("pynative", "graph"))


def _runs() -> Iterator[Any]:
    """Each case on MindSpore in PyNative mode; in Graph mode, which takes a compile for each, and on OpenVINO the first
    of each operator. All with the sweeps."""
    seen: set[str] = set()
    for one in CASES:
        marks = [pytest.mark.slow] if one.target in seen else []
        if marks and MINDSPORE.gap_of(one) is None:
            yield pytest.param(one, PYNATIVE, id=f"{one}-mindspore")
            yield pytest.param(one, GRAPH, id=f"{one}-mindspore-graph", marks=marks)
        else:
            yield pytest.param(one, MINDSPORE, id=f"{one}-mindspore")
        yield pytest.param(one, OPENVINO, id=f"{one}-openvino", marks=marks)
        seen.add(one.target)


@pytest.fixture(scope="session")
def packs(request: pytest.FixtureRequest) -> Packs:
    chosen = [item.callspec.params for item in request.session.items if "packs" in item.fixturenames]
    return Packs((params["one"], params["engine"]) for params in chosen)


@pytest.mark.parametrize(("one", "engine"), list(_runs()))
def test_op_agrees_with_torch(one: Case, engine: UnderTest, packs: Packs) -> None:
    if is_missing(one, engine):
        return
    gap = engine.gap_of(one)
    try:
        wrong = packs.failures(one, engine)
    except InputError:  # refused at the door: whole numbers of more than 32 bits
        return
    except (LoweringError, UnsupportedOps) as error:
        wrong = [str(error)]
    if gap is not None:
        assert wrong, f"{one} agrees now; delete its entry from the gaps of {engine}: {gap.reason}"
        return
    assert not wrong, f"{one}\n" + "\n".join(wrong)


def test_every_case_has_a_name_of_its_own() -> None:
    assert [name for name, count in Counter(map(str, CASES)).items() if count > 1] == []


@pytest.mark.parametrize("engine", ENGINES.values(), ids=str)
def test_every_gap_has_a_case_and_a_reason(engine: UnderTest) -> None:
    for gap in engine.gaps:
        assert gap.reason.strip()
        assert any(gap.covers(one) for one in CASES), gap


@pytest.mark.parametrize("engine", ENGINES.values(), ids=str)
def test_every_lowering_has_a_case(engine: UnderTest) -> None:
    without = set(engine.lowerings) - {one.target for one in CASES}
    assert without - NO_TENSOR == set()


#: They return a Python value, or take what no case can hold; or they draw or remember: tests/training.
NO_TENSOR = {
    "aten._fft_c2c.default",
    "aten._fft_r2c.default",
    "aten._fft_c2r.default",
    "aten.equal.default",
    "aten.to.dtype_layout",
    "paritas.dropout_mask.default",
    "paritas.rounded.default",
    "paritas.batch_norm.default",
}


#: What a lowering says of an argument of each type of a schema. `Any` stands for what may be made of free sizes.
TYPES = {"Tensor": "Value", "int": "int", "bool": "bool", "float": "float", "number": "float", "str": "str"}


@pytest.mark.parametrize("engine", ENGINES.values(), ids=str)
def test_every_lowering_has_the_types_of_its_schemas(engine: UnderTest) -> None:
    """Its names are the schema's too: `lowers` refuses others."""
    wrong = []
    for target, rule in engine.lowerings.items():
        parameters = inspect.signature(inspect.unwrap(rule)).parameters
        for argument in case(target).overload._schema.arguments:
            if argument.name not in parameters or argument.name in registry.OF_RESULT:
                continue
            stated = str(parameters[argument.name].annotation)
            kind = re.sub(r"Optional\[|List\[|\]", "", str(argument.type))
            if "Any" not in stated and TYPES.get(kind, "") not in stated:
                wrong.append(f"{target}: {argument.name} is {argument.type}, not {stated}")
    assert wrong == []


def test_few_lowerings_do_nothing_but_call_another() -> None:
    """What differs in its arguments only is a line above the function that it calls: `@lowers("aten.foo", n=2)`."""
    functions = {inspect.unwrap(rule) for engine in ENGINES.values() for rule in engine.lowerings.values()}
    forwarding = [function.__name__ for function in functions if _only_calls(function)]
    assert len(forwarding) <= 40, sorted(forwarding)


def _only_calls(function: Any) -> bool:
    body = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0].body  # type: ignore[attr-defined]
    code = [part for part in body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]
    only = code[0] if len(code) == 1 else None
    return isinstance(only, ast.Return) and isinstance(only.value, ast.Call) and isinstance(only.value.func, ast.Name)


def _of_two(emit: Any, x: Any, times: Any = 1) -> Any:
    return x


@pytest.mark.parametrize(
    ("targets", "given"),
    [
        ((), {}),
        (("aten.special_airy_ai.default",), {"power": 2}),  # which the function does not take
        (("aten.trapezoid.dx",), {"x": registry.Arg("y")}),  # dx is left
        (("aten.special_airy_ai.default",), {"x": registry.Arg("y")}),  # which the schema has not
    ],
)
def test_what_a_function_and_a_schema_do_not_share_is_refused(targets: Any, given: Any) -> None:
    with pytest.raises(TypeError, match=r"names no operator|does not lower"):
        lowers("no-engine", *targets, **given)(_of_two)


def test_a_function_is_called_by_the_names_and_defaults_of_the_schema() -> None:
    try:
        lowers("no-engine", "aten.sub.Tensor", left=registry.Arg("self"), sign=-1)(
            lambda emit, left, other, alpha, sign: (left, other, alpha, sign)
        )
        rule = registry.LOWERINGS["no-engine"]["aten.sub.Tensor"]
        assert rule(None, "x", "y") == ("x", "y", 1, -1)
        assert rule(None, "x", other="y", alpha=3) == ("x", "y", 3, -1)
    finally:
        registry.LOWERINGS.pop("no-engine", None)


def test_a_second_lowering_of_the_same_operator_is_refused() -> None:
    lowerings("mindspore")
    with pytest.raises(ValueError, match=r"aten\.add\.Tensor is already lowered to mindspore by add\. Delete one"):
        lowers("mindspore", "aten.add.Tensor")(lambda emit, self, other: self)


@pytest.mark.parametrize(
    ("broken", "symptom"),
    [
        (lambda emit, self, other, *, alpha=1: emit.infix("-", self, other), "tolerance"),
        (lambda emit, self, other, *, alpha=1: self, "shape"),
        (
            lambda emit, self, other, *, alpha=1: emit.infix("+", other, emit.infix("*", other, 1e-5)),
            "tolerance",
        ),
        (lambda emit, self, other, *, alpha=1: emit.cast(emit.infix("+", self, other), "float16"), "dtype"),
    ],
)
def test_a_wrong_lowering_is_found(monkeypatch: pytest.MonkeyPatch, broken: object, symptom: str) -> None:
    lowerings("mindspore")
    monkeypatch.setitem(registry.LOWERINGS["mindspore"], "aten.add.Tensor", broken)
    found = failures(case("aten.add.Tensor", vector(4), matrix(3, 4)), MINDSPORE)
    assert len(found) == 2  # once for each mode
    assert all(symptom in line for line in found), found


def test_a_swallowed_nan_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    lowerings("mindspore")
    known = registry.LOWERINGS["mindspore"]
    monkeypatch.setitem(known, "aten.relu.default", lambda emit, self: emit.call("ops.relu", self))
    found = failures(case("aten.relu.default", vector(40).with_(nan)), MINDSPORE)
    assert all("NaN" in line for line in found)


class _Unusual(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.special.bessel_j0(x)
        y = y + torch.special.bessel_j0(y)
        return torch.special.airy_ai(y)


def test_a_wrong_case_is_found_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    lowerings("mindspore")
    known = registry.LOWERINGS["mindspore"]
    monkeypatch.setitem(known, "aten.relu.default", lambda emit, self: emit.call("ops.relu", self))
    right = [case("aten.neg.default", vector(size)) for size in (3, 4, 5)]
    wrong = case("aten.relu.default", vector(40).with_(nan))
    refused = case("aten.rand_like.default", vector(4))
    packs = Packs((one, PYNATIVE) for one in (right[0], wrong, refused, *right[1:]))
    assert [packs.failures(one, PYNATIVE) for one in right] == [[], [], []]
    assert "NaN" in packs.failures(wrong, PYNATIVE)[0]
    with pytest.raises(LoweringError):
        packs.failures(refused, PYNATIVE)


def test_what_is_right_at_the_captured_sizes_alone_is_found_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    lowerings("mindspore")
    known = registry.LOWERINGS["mindspore"]
    add = known["aten.sum.default"]
    monkeypatch.setitem(known, "aten.mean.default", lambda emit, self, dtype=None: emit.infix("/", add(emit, self), 4))
    right = [case("aten.neg.default", vector(size).dynamic(0)) for size in (4, 5)]
    wrong = case("aten.mean.default", vector(4).dynamic(0))
    packs = Packs((one, PYNATIVE) for one in (right[0], wrong, right[1]))
    assert [packs.failures(one, PYNATIVE) for one in right] == [[], []]
    assert len(packs.failures(wrong, PYNATIVE)) == 1  # not at the sizes it was captured with


def test_all_missing_operators_are_reported_at_once_with_their_lines() -> None:
    program = capture(_Unusual(), {"x": torch.rand(3)}, dynamic=False)
    with pytest.raises(UnsupportedOps) as raised:
        preflight(program, "mindspore")
    text = str(raised.value)
    assert text.startswith("mindspore cannot lower 2 of this model's operators:")
    rows = {line.split()[0]: line for line in text.splitlines() if line.startswith("  aten.")}
    assert "x2" in rows["aten.special_bessel_j0.default"].split()
    assert "test_ops.py" in rows["aten.special_bessel_j0.default"]
    assert "y = torch.special.bessel_j0(x)" in rows["aten.special_bessel_j0.default"]
    assert "return torch.special.airy_ai(y)" in rows["aten.special_airy_ai.default"]
    assert "python -m pytest tests/ops -k special_bessel_j0" in text


def test_a_program_of_one_node_holds_that_node() -> None:
    program = program_of(case("aten.view.default", matrix(2, 3), [3, 2]))
    assert [str(node.target) for node in program.graph.nodes if node.op == "call_function"] == ["aten.view.default"]
