# SPDX-License-Identifier: Apache-2.0
"""Whatever Python lets a module, weight or class be called comes out on MindSpore under its name in the checkpoint."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import paritas
from paritas.lower.mindspore.check import grammar
from paritas.lower.mindspore.check.allowed_names import DTYPE_NAMES, FUNCTIONS
from paritas.lower.mindspore.prelude.library import NAMES
from paritas.lower.mindspore.write.cell_names import CELL_NAMES, is_free
from paritas.lower.mindspore.write.places import Places, attribute
from paritas.modes import with_mode

#: Names that nn.Module takes, but Python's syntax, nn.Cell, generated code or MindSpore's own names have trouble with.
ODD = [
    "_conv", "__x", "__x__", "_", "3x3", "0", "01", "12345", "²", "if", "class", "lambda", "None", "match",
    "a b", "a-b",
    "a_b", "é", "e", "ﬁ", "fi", "名", "naïve-1", "\n", '"', "'", "\\", "a,b(", " pad ", "$", "self",
    "cls_name", "construct",
    "construct_1", "name", "params", "cells", "add_flags", "bprop", "phase", "_cells", "_params", "_buffers",
    "shape",
    "dtype", "ops", "ms", "nn", "Parameter", "Tensor", "initializer", "range", "max", "float", "super",
    "softmax", "gelu",
    "layer_norm", "softmax_last", "weight", "bias", "x", "constant_0", "size_s0", "l" * 300, "m m" * 700,
]  # fmt: skip


def _taken_by_torch(name: str) -> bool:
    return hasattr(nn.Module(), name)


class Named(nn.Module):
    """For each name a module with weights in a dict, and in attributes: a module, a parameter, and a buffer."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict()
        self.table = nn.ParameterDict()
        self.own = nn.Module()
        self.kept = nn.Module()
        self.made = nn.Module()
        for place, name in enumerate(names):
            if not hasattr(self.heads, name):
                self.heads[name] = nn.Linear(3, 3)
            if not hasattr(self.table, name):
                self.table[name] = nn.Parameter(torch.randn(3))
            # Not each a LayerNorm, which takes MindSpore's PyNative mode 16 ms.
            self.own.add_module(name, nn.Linear(3, 3) if place % 8 else nn.LayerNorm(3))
            with torch.no_grad():
                self.own._modules[name].weight.normal_()
            self.kept.register_parameter(name, nn.Parameter(torch.randn(3)))
            self.made.register_buffer(name, torch.randn(3), persistent=len(name) % 2 == 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for head in self.heads.values():
            x = head(x).tanh()
        for value in self.table.values():
            x = x + value
        for module in self.own._modules.values():
            x = module(x)
        for value in [*self.kept._parameters.values(), *self.made._buffers.values()]:
            x = x * 0.9 + value
        return x


def _agrees(port: paritas.Port, model: nn.Module, inputs: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        want = model(**inputs)
    torch.testing.assert_close(port(**inputs), want, rtol=2e-5, atol=2e-5)


def _ported(model: nn.Module, inputs: dict[str, torch.Tensor], mode: str = "pynative") -> paritas.Port:
    port = paritas.port(model.eval(), engine="mindspore", mode=mode, inputs=inputs)
    grammar.check(port.artifact.entry.read_text(encoding="utf-8"), "module")
    _agrees(port, model, inputs)
    return port


def test_odd_names_of_modules_weights_and_buffers(tmp_path: Path) -> None:
    names = [name for name in ODD if not _taken_by_torch(name)]
    torch.manual_seed(0)
    model, inputs = Named(names), {"x": torch.randn(2, 3)}
    port = _ported(model, inputs, mode="graph")
    assert set(port.session.cell.parameters_dict()) == set(model.state_dict())
    port.save(tmp_path / "port")
    _agrees(paritas.load(tmp_path / "port", mode="pynative"), model, inputs)
    # The same source, which PyNative mode compiles for no shape anew.
    report = with_mode(port, "pynative").verify(inputs, level="nodes", original=model)
    assert report.verdict == "agrees", str(report)


def test_attributes_are_the_originals_where_they_can_be() -> None:
    assert [attribute(name) for name in ("weight", "_conv", "_conv_stem", "match", "shape", "ops")] == [
        "weight", "_conv", "_conv_stem", "match", "shape", "ops"
    ]  # fmt: skip
    wanted = {
        "a b": "a_b", "3x3": "_3x3", "class": "class_", "é": "e", "__x": "_x", "construct_1": "construct_1_",
        "名": "_named",
        "0": "_0",
    }  # fmt: skip
    assert {name: attribute(name) for name in wanted} == wanted


def test_no_two_names_share_an_attribute() -> None:
    held = [*ODD, *(f"{name}_" for name in ODD), *(f"{name}_2" for name in ODD)]
    places = Places({"": held}, ())
    found = [places.of(name) for name in held]
    assert len(set(found)) == len(held)
    assert all(is_free(name) and not keyword.iskeyword(name) for name in found)
    kept = [name for name in held if attribute(name) == name]
    assert [places.of(name) for name in kept] == kept


def test_the_list_of_a_cells_own_attributes_is_whole() -> None:
    mindspore = pytest.importorskip("mindspore")
    cells = [mindspore.nn.Cell(), mindspore.nn.CellList([mindspore.nn.Identity()])]
    own = {name for cell in cells for name in {*dir(cell), *vars(cell)} if not name.startswith("__")}
    assert own <= CELL_NAMES | {"_0", "0"}, sorted(own - CELL_NAMES)


def _class_called(name: str) -> type[nn.Module]:
    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)

    def init(self: nn.Module) -> None:
        nn.Module.__init__(self)
        self.linear = nn.Linear(3, 3)

    return type(name, (nn.Module,), {"__init__": init, "forward": forward})


def test_odd_names_of_classes() -> None:
    names = [
        "ops", "nn", "ms", "Tensor", "Parameter", "range", "_", "__X", "class", "3D", "naïve", "名", 'a"""b\\',
        "softmax", "k" * 300, "\n", "self", "float", "Linear",
    ]  # fmt: skip

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.Sequential(*[_class_called(name)() for name in names])
            self.twice = nn.Sequential(_class_called("_")(), _class_called("_")())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.twice(self.parts(x)), 0)

    _ported(Net(), {"x": torch.randn(2, 3)})
    _ported(_class_called("l" * 300)(), {"x": torch.randn(2, 3)})


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.r = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pos = torch.arange(3.0).exp()
        return x + self.r(pos)


class ConstantInListElement(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.b = nn.ModuleList([Block(), Block()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b[1](self.b[0](x))


class Reads(nn.Module):
    """Weights of others, two of which end alike, beside variables that are called as they would be."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.held = (one, other)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        proj_weight = x * 2
        weight = proj_weight @ self.held[0].weight
        other = weight @ self.held[1].weight + self.held[0].bias - self.held[1].bias
        return other * proj_weight + weight


class WeightsReadElsewhere(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(4)])
        self.a = nn.ModuleDict({"proj": nn.Linear(3, 3)})
        self.b = nn.ModuleDict({"proj": nn.Linear(3, 3)})
        self.reads = nn.ModuleList([Reads(self.layers[3], self.layers[1]), Reads(self.a["proj"], self.b["proj"])])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers[3](x) @ self.layers[3].weight + self.layers[0].bias
        for reads in self.reads:
            x = reads(x)
        return x


class Loops(nn.Module):
    """Lists whose entries would be called as a variable, a keyword or a function is."""

    def __init__(self) -> None:
        super().__init__()
        self.xs = nn.ModuleList([nn.Linear(3, 3) for _ in range(2)])
        self.ifs = nn.ModuleList([nn.Linear(3, 3) for _ in range(2)])
        self.gelus = nn.ModuleList([nn.Linear(3, 3) for _ in range(2)])
        self.ys = nn.ModuleList([nn.Linear(3, 3) for _ in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.gelu(x)
        for layer in [*self.xs, *self.ifs, *self.gelus, *self.ys]:
            x = layer(x)
        return x + y


class Shared(nn.Module):
    """One module under two names, one weight in two modules, and tied weights in lists."""

    def __init__(self) -> None:
        super().__init__()
        self.one = self.two = nn.Linear(3, 3)
        self.heads = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])
        for head in self.heads[1:]:
            head.weight = self.heads[0].weight
        self.pieces = nn.ParameterList([self.heads[0].bias, nn.Parameter(torch.randn(3)), self.one.bias])
        self.named = nn.ParameterDict({"a b": self.pieces[1], "c": nn.Parameter(torch.randn(3))})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.two(self.one(x))
        for head in self.heads:
            x = head(x).tanh()
        for piece in [*self.pieces, *self.named.values()]:
            x = x * piece
        return x


class Views(nn.Module):
    """Weights and buffers that are parts of one another."""

    def __init__(self) -> None:
        super().__init__()
        whole = torch.randn(6, 3)
        self.first, self.rest = nn.Parameter(whole[:3]), nn.Parameter(whole[1:4])
        self.spread = nn.Parameter(torch.as_strided(whole, (3, 3), (3, 1), 3))
        self.turned = nn.Parameter(whole[:3].T)
        self.register_buffer("whole", whole)
        self.register_buffer("row", whole[2].expand(3, 3))
        self.register_buffer("unsaved", whole[3:], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x @ self.first + x @ self.rest - x @ self.spread + x @ self.turned
        return x @ self.row + x @ self.whole[1:4] - x @ self.unsaved


class Mixed(nn.Module):
    """Numbers among other names, a list that owns a weight, and one number that is large."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed = nn.ModuleDict({"0": nn.Linear(3, 3), "a": nn.Linear(3, 3), "_0": nn.Linear(3, 3)})
        self.owning = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.owning.register_parameter("scale", nn.Parameter(torch.randn(3)))
        self.sparse = nn.ModuleDict({"100000000": nn.Linear(3, 3), "5": nn.Linear(3, 3), "05": nn.Linear(3, 3)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in [*self.mixed.values(), *self.owning, *self.sparse.values()]:
            x = layer(x)
        return x * self.owning.scale


class OtherRank(nn.Module):
    """Called twice with tensors of different rank, for which the same operator is another primitive."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)[0] + self.inner(x[0])


class Inner(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(-1, keepdim=x.dim() == 2).cumsum(x.dim() - 2).softmax(0) + torch.arange(3.0).exp()[: x.dim()].sum()


class KeptBeside(nn.Module):
    """What is about to be bound anew is kept, while the call that binds it reads the name that it was last given."""

    def __init__(self, mix: nn.Module | None = None) -> None:
        super().__init__()
        self.mix, self.norm, self.attend = mix, nn.LayerNorm(3), nn.Bilinear(3, 3, 3)
        self.inner = nn.ModuleList([] if mix is None else [KeptBeside()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = x
        for layer in self.inner:
            hidden = layer(hidden)
        residual = hidden
        if self.mix is None:
            query = key = hidden
        else:
            query, key = self.mix(hidden)
        hidden = self.attend(self.norm(query), key)
        return residual + hidden.tanh()


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2 - 1, x.exp()


CASES: dict[str, Callable[[], nn.Module]] = {
    "constant in a list element": ConstantInListElement,
    "weights read elsewhere": WeightsReadElsewhere,
    "loops": Loops,
    "shared": Shared,
    "views": Views,
    "mixed": Mixed,
    "other rank": OtherRank,
    "kept beside": lambda: KeptBeside(Pair()),
}


@pytest.mark.parametrize("name", CASES)
def test_modules_whose_names_could_clash(name: str) -> None:
    torch.manual_seed(0)
    model = CASES[name]()
    port = _ported(model, {"x": torch.randn(2, 3)} if name != "other rank" else {"x": torch.randn(2, 3, 3)})
    assert set(port.session.cell.parameters_dict()) == set(port.program().weights)


class Variables(nn.Module):
    def forward(self, ops: torch.Tensor, input: torch.Tensor, gelu: torch.Tensor, été: torch.Tensor) -> torch.Tensor:
        __y = nn.functional.gelu(ops)
        ms = __y + input
        range = ms * gelu
        ﬁn = range - été
        max = torch.tanh(ﬁn)
        _ = max * ﬁn
        softmax = torch.softmax(_, 0)
        return softmax + max


def test_variables_that_generated_code_has_other_uses_for() -> None:
    inputs = {name: torch.randn(2, 3) for name in ("ops", "input", "gelu", "été")}
    _ported(Variables(), inputs, mode="graph")


def test_functions_of_the_prelude_are_no_attribute_of_a_cell() -> None:
    assert {"softmax", "layer_norm"} <= NAMES


def test_every_name_that_generated_code_may_use_is_written_by_something() -> None:
    """What is allowed is what an attacker has: a name that no lowering and no function of the prelude writes, goes."""
    home = Path(paritas.__file__).parent / "lower" / "mindspore"
    texts = (path.read_text() for path in home.rglob("*.py") if path.parent.name != "check")
    written = set(re.findall(r"(?<![\w.])(?:ms|nn|ops)\.\w+", "\n".join(texts)))
    assert (FUNCTIONS | DTYPE_NAMES) - written == set()
