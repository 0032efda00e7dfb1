# SPDX-License-Identifier: Apache-2.0
"""Bisection finds the smallest part that is wrong, and writes a script that shows it without Paritas."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_programs import Mlp, program_of
from typer.testing import CliRunner

from paritas.cli.app import app
from paritas.errors import EngineError, LoweringError
from paritas.program import Frame, Origin
from paritas.run.script import Side
from paritas.run.torch.part import Part, Recorded, compute, part_of, record
from paritas.verify.bisect.reduce import search
from paritas.verify.bisect.script import write_script
from paritas.verify.bisect.script_torch import Identifiers, one_line
from paritas.verify.bisect.trial import Laboratory, Outcome
from paritas.verify.of_port import nodes_of

# --- the search -------------------------------------------------------------------------------------------


def attempt_of(guilty: set[str], kind: Any = "diverges") -> Callable[[Sequence[str]], Outcome]:
    """An engine that is wrong where all of `guilty` are in one part."""
    return lambda part: Outcome(kind if guilty <= set(part) else "agrees")


NODES = [f"n{i}" for i in range(100)]


@pytest.mark.parametrize(
    "guilty",
    [{"n0"}, {"n57"}, {"n99"}, {"n3", "n4"}, {"n49", "n50"}, {"n0", "n99"}, {"n10", "n40", "n41", "n90"}],
    ids=lambda guilty: "+".join(sorted(guilty)),
)
def test_what_is_left_is_what_is_guilty(guilty: set[str]) -> None:
    found = search(NODES, attempt_of(guilty))
    assert set(found.nodes) == guilty and found.minimal and found.found
    assert list(found.nodes) == sorted(found.nodes, key=NODES.index)
    assert found.tries.total() <= 20 * len(guilty) + 20


def test_a_crash_is_halved_as_a_divergence_is_and_they_are_not_mistaken_for_each_other() -> None:
    def attempt(part: Sequence[str]) -> Outcome:
        if {"n8", "n9"} <= set(part):
            return Outcome("crashes", reason="segment")
        return Outcome("diverges" if "n9" in part else "agrees")

    found = search(NODES, attempt)
    assert found.nodes == ("n8", "n9") and found.outcome.kind == "crashes"
    assert set(found.tries) == {"crashes", "diverges", "agrees"}
    assert not search(NODES, attempt, wanted="diverges").found


def test_parts_that_cannot_be_tried_are_gone_around() -> None:
    def attempt(part: Sequence[str]) -> Outcome:
        return Outcome("unknown") if 20 < len(part) < 60 else attempt_of({"n20"})(part)

    found = search(NODES, attempt)
    assert found.nodes == ("n20",) or len(found.nodes) >= 60
    assert found.tries["unknown"]


def test_where_the_whole_agrees_nothing_is_searched() -> None:
    found = search(NODES, attempt_of({"elsewhere"}))
    assert (found.found, found.tries.total(), found.whole.kind) == (False, 1, "agrees")


def test_time_that_is_up_leaves_what_was_found_until_then() -> None:
    ticks = iter(range(1000))
    found = search(NODES, attempt_of({"n57"}), seconds=4, clock=lambda: next(ticks))
    assert "n57" in found.nodes and 1 < len(found.nodes) < 100 and not found.minimal
    none = search(NODES, attempt_of({"n57"}), seconds=0)
    assert len(none.nodes) == 100 and not none.minimal and none.found


def test_each_part_is_tried_once_and_told() -> None:
    seen: list[tuple[str, ...]] = []
    told: list[str] = []

    def attempt(part: Sequence[str]) -> Outcome:
        seen.append(tuple(part))
        return attempt_of({"n31", "n77"})(part)

    found = search(NODES, attempt, progress=told.append)
    assert len(seen) == len(set(seen)) == found.tries.total() == len(told)
    assert told[0] == "try 1: all 100 nodes" and told[-1].startswith(f"try {len(seen)}: ")


# --- parts of a program -----------------------------------------------------------------------------------


class Branches(torch.nn.Module):
    """Two paths that meet, a size that is read, a tuple."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        left, right = torch.tanh(x).chunk(2, -1)
        sums = torch.sigmoid(left) + torch.exp(right).reshape(x.shape[0], -1)
        return sums * 2.0, sums.argmax(-1)


def laboratory(module: torch.nn.Module, feed: Mapping[str, np.ndarray], wrong: Any = None) -> Laboratory:
    """On a fake engine: PyTorch in float32, and `wrong(part, what it found)`."""
    program = program_of(module, {name: torch.from_numpy(value) for name, value in feed.items()})

    def engine(part: Part, recorded: Recorded, borders: Sequence[str]) -> Mapping[str, np.ndarray]:
        found = compute(program, part, recorded, "float32")
        return found if wrong is None else wrong(part, found)

    recorded = record(program, feed)
    infos = {info.name: info for info in nodes_of(program)}
    return Laboratory(program, recorded, infos, engine, tuple(infos), "float32")


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_a_part_knows_its_border() -> None:
    lab = laboratory(Branches(), {"x": values(3, 8)})
    by_target = {info.target.split(".")[1]: name for name, info in lab.infos.items()}
    part = lab.part([by_target["add"], by_target["exp"]])
    assert part.outputs == (by_target["exp"], by_target["add"])  # reshape, outside, reads exp
    assert set(part.inputs) >= {by_target["sigmoid"]}
    assert part.weights == () and set(part.members) == set(part.nodes)
    whole = lab.part(lab.borders)
    assert whole.inputs == ("x",) and len(whole.outputs) == 2
    hidden = part_of(lab.program, [by_target["tanh"]], [by_target["tanh"], by_target["mul"]])
    assert hidden.outputs == (by_target["tanh"],)


@pytest.mark.parametrize("module", [Branches, Mlp], ids=lambda module: module.__name__)
def test_every_interval_of_a_right_engine_agrees(module: type[torch.nn.Module]) -> None:
    lab = laboratory(module(), {"x": values(3, 8)})
    for start in range(len(lab.borders)):
        for end in range(start + 1, len(lab.borders) + 1):
            outcome = lab.attempt(lab.borders[start:end])
            assert outcome.kind in ("agrees", "unknown"), outcome
            assert outcome.kind == "agrees" or "nothing reads" in outcome.reason


def test_two_nodes_that_are_wrong_together_are_found() -> None:
    def wrong(part: Part, found: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        fused = {"gelu", "linear_1"} <= set(part.members)
        return {n: v * (1 + 1e-3 * fused) if v.dtype.kind == "f" else v for n, v in found.items()}

    lab = laboratory(Mlp(), {"x": values(3, 8)}, wrong)
    found = search(lab.borders, lab.attempt)
    assert set(found.nodes) == {"gelu", "linear_1"}
    assert not found.outcome.rows[-1].agrees and found.outcome.rows[-1].port_error > 1e-4


@pytest.mark.parametrize(
    ("what", "wrong"),
    [
        ("NaN", lambda v: np.where(v == v.flat[0], np.nan, v).astype(v.dtype)),
        ("shape", lambda v: v[:1]),
        ("error", lambda v: v + np.float32(1e-3)),
        ("nothing", None),
    ],
)
def test_whatever_is_wrong_diverges(what: str, wrong: Any) -> None:
    def engine(part: Part, found: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        if wrong is None:
            return {}
        return {n: wrong(v) if v.dtype.kind == "f" else v for n, v in found.items()}

    lab = laboratory(Mlp(), {"x": values(3, 8)}, engine)
    outcome = lab.attempt(lab.borders)
    assert outcome.kind == "diverges"
    assert what in (outcome.rows[0].fault or "error") or what == "nothing"


def test_an_index_that_rounding_decides_is_not_held_against_an_engine() -> None:
    lab = laboratory(Mlp(), {"x": values(3, 8)})
    info = dataclasses.replace(lab.infos["argmax"], orders="")
    want, other = np.array([1, 2]), np.array([1, 0])
    assert lab._without_ties(info, np.array([1, 0]), want, other).tolist() == [1, 2]
    assert lab._without_ties(info, want, want, other).tolist() == [1, 0]


class Sorted(torch.nn.Module):
    """Rows put in an order, and put back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        order = torch.argsort(x[:, 0])
        rows = torch.tanh(x[order])
        return torch.zeros_like(rows).index_put((order,), rows) * 2.0


def test_what_an_order_has_arranged_is_judged_where_it_is_given_or_returned() -> None:
    lab = laboratory(Sorted(), {"x": values(5, 4)})
    by_target = {info.target.split(".")[1]: name for name, info in lab.infos.items()}
    assert lab._judged(lab.part(lab.borders)) == [by_target["mul"]]
    assert lab._judged(lab.part([by_target["argsort"]])) == [by_target["argsort"]]
    assert lab._judged(lab.part([by_target["tanh"]])) == [by_target["tanh"]]
    assert by_target["tanh"] not in lab._judged(lab.part([by_target[n] for n in ("argsort", "index", "tanh")]))
    assert lab.attempt([by_target[n] for n in ("argsort", "index", "tanh")]).kind == "agrees"


def test_an_engine_that_raises_crashes_and_one_that_cannot_be_asked_is_unknown() -> None:
    for error, kind in ((EngineError("boom"), "crashes"), (LoweringError("no"), "unknown")):

        def wrong(part: Part, found: Any, error: Exception = error) -> Any:
            raise error

        lab = laboratory(Mlp(), {"x": values(3, 8)}, wrong)
        assert lab.attempt(lab.borders).kind == kind


def test_more_nodes_may_round_more_but_less_than_all_of_them_together() -> None:
    lab = laboratory(Mlp(), {"x": values(3, 8)})
    one, whole = lab.roundings(lab.part(["gelu"])), lab.roundings(lab.part(lab.borders))
    each = [lab.roundings(lab.part([name])) for name in lab.part(lab.borders).members]
    assert one < whole < sum(each)
    half = dataclasses.replace(lab, precision="bfloat16")
    assert half.roundings(half.part(half.borders)) == max(each)


# --- scripts ----------------------------------------------------------------------------------------------

EVIL = [
    "x\nimport os; os.abort()",
    "x\r\x0b\x0c\x1c\u2028\x85import os; os.abort()",
    'x"""\nraise SystemExit(9)\n"""',
    "coding: utf-7",
    "x\\",
    "x\x00y",
    "'); raise SystemExit(9); ('",
]


@pytest.mark.parametrize("text", EVIL)
def test_text_of_a_model_stays_in_its_comment(text: str) -> None:
    said = one_line(text)
    assert said.isprintable() and "\n" not in said
    assert ast.parse(f"# {said}\n").body == []


@pytest.mark.parametrize("text", [*EVIL, "", "class", "match", "1x", "é", "a.b/c", "torch", "x" * 500])
def test_a_variable_is_one_whatever_it_is_named_after(text: str) -> None:
    names = Identifiers(frozenset({"torch", "x"}))
    found = [names.of(text), names.new(text), names.of("y" + text)]
    assert len(set(found)) == 3 and names.of(text) == found[0]
    for name in found:
        assert name.isidentifier() and name.isascii() and name not in ("torch", "x", "class", "match")
        assert len(name) < 80
        compile(f"{name} = 1", "here", "exec")


def numpy_side(part: Part, names: Identifiers, stem: str) -> Side:
    """An engine that is none, and wrong."""
    outputs = ", ".join(f'"{names.of(name)}": np.zeros(1)' for name in part.outputs)
    body = ("", "", "def build():", "    return None", "", "", "def run(model):", f"    return {{{outputs}}}")
    return Side("NumPy", ("import numpy as np",), body, {}, "CPU")


def test_nothing_of_a_model_gets_into_a_script_as_code(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lab = laboratory(Mlp(), {"x": values(3, 8)}, lambda part, found: {n: v[:1] for n, v in found.items()})
    outcome = lab.attempt(lab.borders)
    plain = write_script(tmp_path / "plain", lab, lab.borders, outcome, numpy_side, versions="1")
    evil = {name: Origin(t, t, (Frame(t, 1, t, t),)) for name, t in zip(lab.infos, EVIL, strict=False)}
    lab = dataclasses.replace(
        lab,
        program=dataclasses.replace(lab.program, origins=evil),
        infos={n: dataclasses.replace(info, origin=lab_origin) for (n, info), lab_origin in zip(
            lab.infos.items(), evil.values(), strict=False)},
    )  # fmt: skip
    rows = tuple(dataclasses.replace(row, fault="".join(EVIL)) for row in outcome.rows)
    outcome = dataclasses.replace(outcome, rows=rows)
    script = write_script(tmp_path, lab, lab.borders, outcome, numpy_side, versions="\n".join(EVIL), remark=EVIL[0])
    assert script.reproduces, script.doubt  # it ran to its end
    trees = [ast.dump(ast.parse(one.file.read_text(encoding="utf-8"))) for one in (script, plain)]
    assert trees[0] == trees[1]
    assert {file.name for file in tmp_path.iterdir()} == {script.file.name, script.tensors.name, "plain"}


def test_a_script_that_does_not_show_it_is_doubted(tmp_path: Path) -> None:
    lab = laboratory(Mlp(), {"x": values(3, 8)})
    outcome = Outcome("diverges", lab.attempt(["gelu"]).rows)

    def broken(part: Part, names: Identifiers, stem: str) -> Side:
        return dataclasses.replace(numpy_side(part, names, stem), body=("", "", "def run(model): return {}"))

    def right(part: Part, names: Identifiers, stem: str) -> Side:
        body = ("", "", "def build(): return None", "", "", "def run(model):")
        body += ("    return {name: plain(value) for name, value in in_torch(torch.float32).items()}",)
        return dataclasses.replace(numpy_side(part, names, stem), body=body)

    for side, doubt in ((broken, "NameError"), (right, "by itself it agrees with PyTorch")):
        script = write_script(tmp_path, lab, ["gelu"], outcome, side, versions="1")
        assert not script.reproduces and doubt in script.doubt


# --- the command ------------------------------------------------------------------------------------------


def test_the_command_says_what_is_wrong_with_its_words(tmp_path: Path) -> None:
    (tmp_path / "port.json").write_text("{}")
    for arguments in (["bisect", str(tmp_path / "none")], ["bisect", str(tmp_path)]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2, result.output
    result = CliRunner().invoke(app, ["verify", str(tmp_path), "--repro", str(tmp_path / "out")])
    assert result.exit_code == 2 and "--level nodes" in result.output
