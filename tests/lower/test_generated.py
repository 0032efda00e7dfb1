# SPDX-License-Identifier: Apache-2.0
"""The generated MindSpore module as a reader meets it, and the shapes of modules that make it difficult."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import paritas
from families import KINDS, build
from paritas.capture import capture
from paritas.errors import LoweringError, UnsupportedOps
from paritas.lower.mindspore.check import grammar
from paritas.lower.mindspore.prelude import library
from paritas.lower.mindspore.write.loops import fold_loops
from paritas.lower.mindspore.write.module import generate
from paritas.lower.mindspore.write.source import LINE_LENGTH
from paritas.modes import with_mode


@pytest.fixture(scope="module")
def bert() -> str:
    return generate(capture(build("bert"))).source


def _classes(source: str) -> dict[str, ast.ClassDef]:
    return {n.name: n for n in ast.parse(source).body if isinstance(n, ast.ClassDef)}


def test_it_imports_only_mindspore(bert: str) -> None:
    imports = [n for n in ast.walk(ast.parse(bert)) if isinstance(n, (ast.Import, ast.ImportFrom))]
    names = {n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in imports}
    assert {str(name).split(".")[0] for name in names} == {"mindspore"}


def test_classes_and_attributes_are_the_originals(bert: str) -> None:
    model = build("bert")
    originals = {type(m).__name__ for m in model.modules()} - {"ModuleList", "Dropout"}
    assert set(_classes(bert)) == originals, "every module has one class, identical ones share it"
    assert "self.layer = nn.CellList([BertLayer() for _ in range(2)])" in bert
    assert "for layer in self.layer:" in bert


def test_forwards_read_like_the_original(bert: str) -> None:
    pooler = ast.unparse(_classes(bert)["BertPooler"])
    assert "first_token_tensor = hidden_states[:, 0]" in pooler
    assert "pooled_output = self.dense(first_token_tensor)" in pooler
    attention = _classes(bert)["BertSelfAttention"].body[-1]
    assert isinstance(attention, ast.FunctionDef)
    assert [a.arg for a in attention.args.args] == ["self", "hidden_states", "attention_mask"]


def test_comments_are_lines_of_the_original(bert: str) -> None:
    comments = re.findall(r"# (\w+\.py):(\d+)  (.+)", bert)
    assert len(comments) > 5
    import transformers.models.bert.modeling_bert as original

    lines = Path(str(original.__file__)).read_text().splitlines()
    for file, line, text in comments:
        if file == "modeling_bert.py":
            start = text[:12]
            assert start.split("(")[0].split(" = ")[0].strip() in lines[int(line) - 1], (line, text)


def test_a_comment_says_more_than_the_line_below_it(bert: str) -> None:
    lines = [line.strip() for line in bert.splitlines()]
    for line, below in itertools.pairwise(lines):
        if re.match(r"# \w+\.py:\d+  ", line):
            assert line.partition("  ")[2] != below
    assert not any(line.startswith("#") and line.endswith("...") for line in lines)


@pytest.mark.parametrize("family", KINDS)
def test_it_is_formatted_and_clean(family: str, tmp_path: Path) -> None:
    file = tmp_path / f"modeling_{family.replace('-', '_')}.py"
    file.write_text(generate(capture(build(family))).source)
    assert max(map(len, file.read_text().splitlines())) <= LINE_LENGTH
    ruff = [sys.executable, "-m", "ruff"]
    rules = "--select=E,F,W,B --ignore=E501,F811"
    run = subprocess.run([*ruff, "check", "--isolated", *rules.split(), str(file)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    form = [*ruff, "format", "--isolated", f"--line-length={LINE_LENGTH}", "--diff", str(file)]
    run = subprocess.run(form, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    grammar.check(file.read_text(), file.name)


def test_no_two_functions_of_the_library_share_a_name() -> None:
    folder = Path(library.__file__).parent
    trees = [ast.parse((folder / name).read_text()) for name in library._LIBRARIES]
    defined = [
        node.name if isinstance(node, ast.FunctionDef) else node.targets[0].id
        for tree in trees
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.Assign))
    ]
    assert sorted(defined) == sorted(set(defined))


def test_generating_twice_gives_the_same_text(bert: str) -> None:
    assert generate(capture(build("bert"))).source == bert


class Twice(nn.Module):
    """One layer called twice, on tensors of different rank."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shared(self.shared(x).relu().mean(1))


class Tied(nn.Module):
    """A parameter used under two names, and one of a module that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight
        self.uncalled = nn.Linear(4, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(ids) + self.uncalled.bias)


class Inner(nn.Module):
    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table = table
        self.linear = nn.Linear(4, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.linear(self.table(ids))


class SharedFromOutside(nn.Module):
    """A module registered in two places: called by one that is not its first owner."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.inner = Inner(self.table)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.inner(ids) + self.table(ids)


class Unnamed(nn.Module):
    """Modules whose names can be no attribute, in a list and beside other modules: CLIP's shortcuts have a "-1"."""

    def __init__(self) -> None:
        super().__init__()
        parts = [("-1", nn.ReLU()), ("0", nn.Linear(4, 4)), ("1", nn.LayerNorm(4))]
        self.shortcut = nn.Sequential(OrderedDict(parts))
        self.mixed = nn.Sequential(OrderedDict([("a-b", nn.Tanh()), ("linear", nn.Linear(4, 4))]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mixed(self.shortcut(x))


class Gaps(nn.Module):
    """Sequentials with numbers that own nothing, nested, and a list called in another order."""

    def __init__(self) -> None:
        super().__init__()
        inner = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), inner, nn.Linear(6, 4))
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        for index in (2, 0, 1):
            x = self.layers[index](x)
        return x


class Constants(nn.Module):
    """Buffers of all kinds, a constant made in forward, and one too large to be written out."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("saved", torch.randn(3))
        self.register_buffer("unsaved", torch.randn(3), persistent=False)
        self.register_buffer("large", torch.randn(9, 33), persistent=False)
        self.register_buffer("counting", torch.arange(297).reshape(9, 33), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + self.saved * self.unsaved * torch.tensor([1.0, -2.0, 0.5])).sum() + self.large * self.counting


class ManyOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.split = Splitter()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        left, right = self.split(x)
        return {"right": right * 2, "left": left}


class Splitter(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x[..., :2] + 1, x[..., 2:] - 1


class SizeFromOutside(nn.Module):
    """A size that no tensor inside the module has."""

    def __init__(self) -> None:
        super().__init__()
        self.fold = Fold()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fold(x.reshape(-1, 4), x.shape[1])


class Fold(nn.Module):
    def forward(self, x: torch.Tensor, length: int) -> torch.Tensor:
        return (x * length).reshape(-1, length, 4).sum(1)


X = {"x": torch.randn(2, 5, 4)}
IDS = {"ids": torch.randint(0, 10, (2, 5))}

MODULES = {
    "twice": (Twice, X),
    "tied": (Tied, IDS),
    "shared from outside": (SharedFromOutside, IDS),
    "gaps": (Gaps, X),
    "unnamed": (Unnamed, X),
    "a sequential itself": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)),
        {"input": X["x"]},
    ),
    "constants": (Constants, {"x": torch.randn(2, 3)}),
    "many outputs": (ManyOutputs, X),
    "size from outside": (SizeFromOutside, X),
    "no weights": (Splitter, X),
}


#: Tried every day; each compiles in both modes in processes of its own.
DAILY = {"gaps", "unnamed", "shared from outside", "tied"}


@pytest.mark.parametrize("name", [n if n in DAILY else pytest.param(n, marks=pytest.mark.slow) for n in MODULES])
@pytest.mark.slow
def test_difficult_modules_run_in_both_modes_and_keep_their_names(name: str, tmp_path: Path) -> None:
    make, inputs = MODULES[name]
    torch.manual_seed(0)
    model = make().eval()
    port = paritas.port(model, engine="mindspore", inputs=inputs)
    assert set(port.session.cell.parameters_dict()) == set(port.program().weights)
    grammar.check(port.artifact.entry.read_text(), "module")
    port.save(tmp_path / "port")
    for one in (port, with_mode(port, "pynative"), paritas.load(tmp_path / "port")):
        report = one.verify(level="outputs", original=model)
        assert report.verdict == "agrees", str(report)


def test_a_tied_parameter_is_one_parameter() -> None:
    model = Tied()
    port = paritas.port(model, engine="mindspore", inputs=IDS)
    assert list(port.session.cell.parameters_dict()) == ["embed.weight", "uncalled.weight", "uncalled.bias"]


def test_all_unsupported_operators_are_named_at_once() -> None:
    class Unsupported(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.linalg.matrix_exp(x)
            return torch.special.bessel_j0(y) + torch.special.bessel_j0(x)

    with pytest.raises(UnsupportedOps) as caught:
        paritas.port(Unsupported(), engine="mindspore", inputs={"x": torch.randn(3, 3)})
    message = str(caught.value)
    assert "aten.special_bessel_j0.default" in message
    assert "x2" in message
    assert "matrix_exp" in message
    assert "test_generated.py:" in message
    assert "python -m pytest tests/ops -k" in message


def test_loops_are_folded_only_where_they_are_loops() -> None:
    layers = [f"h = self.layers[{i}]({'x' if i == 0 else 'h'}, mask)" for i in range(3)]
    lengths = {"self.layers": 3}
    assert fold_loops(["a = b", *layers, "return h"], lengths) == [
        "a = b", "h = x", "for layer in self.layers:", "    h = layer(h, mask)", "return h"
    ]  # fmt: skip
    assert fold_loops(layers[:2], lengths) == layers[:2], "not all of them"
    other = [*layers[:2], "h = self.layers[2](h, other)"]
    assert fold_loops(other, lengths) == other, "another argument"
    backwards = layers[::-1]
    assert fold_loops(backwards, lengths) == backwards
    assert fold_loops(["return x"], {}) == ["return x"]


@pytest.mark.slow
def test_float16_ports_keep_the_originals_casts() -> None:
    model = build("t5-encoder")
    port = paritas.port(model, engine="mindspore", dtype="float16")
    assert "ms.float16" in port.artifact.entry.read_text()
    ids = torch.randint(3, 120, (2, 6))
    got = port(input_ids=ids).last_hidden_state
    assert got.dtype == torch.float16
    with torch.no_grad():
        want = model.half()(input_ids=ids).last_hidden_state
    assert np.abs(got.float() - want.float()).max() < 0.02


def test_a_constant_that_no_file_holds_is_refused() -> None:
    class Turned(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            angles = torch.arange(64, dtype=torch.float64)
            return (x * torch.polar(torch.ones_like(angles), angles)).real

    with pytest.raises(LoweringError, match="complex128, which a port's file cannot hold"):
        paritas.port(Turned(), inputs=(torch.randn(2, 64),), engine="mindspore")
