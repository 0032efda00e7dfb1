# SPDX-License-Identifier: Apache-2.0
"""An engine is a lowering, an adapter and a line: one made by CONTRIBUTING's steps has all that Paritas does."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy

import paritas
from paritas.errors import InputError, UnsupportedOps
from paritas.run import engine, session

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine.ENGINES, "toy", engine.EngineSpec("toy:Toy", "toy:lower"))


class Two(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = torch.nn.Linear(6, 4), torch.nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.first(x))) * 3


def _port() -> paritas.Port:
    torch.manual_seed(0)
    return paritas.port(Two().eval(), engine="toy", inputs={"x": torch.randn(2, 6)})


def _section() -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return text.split("## Add an engine\n")[1].split("\n## ")[0]


def test_what_is_to_be_written_is_what_the_toy_has() -> None:
    names = set(re.findall(r"`(\w+)(?:\([\w, ]*\))?`", _section()))
    facts = {n for n in vars(engine.Engine) if not n.startswith("_")} | set(engine.Engine.__annotations__)
    derived = {"title", "capture_dtype", "is_original", "start", "extra"}
    assert facts - derived <= names, "a fact that nobody is told of"
    capabilities = {
        name
        for name, value in vars(session).items()
        if inspect.isclass(value) and value.__module__ == session.__name__ and hasattr(value, "_is_protocol")
    }
    assert capabilities - {"Session", "State", "TakesVjps"} <= names, "a capability that nobody is told of"
    required = set(engine.Engine.__abstractmethods__) | {"name", "label", "package"}
    assert {n for n in vars(toy.Toy) if not n.startswith("_")} == required
    for name in required | {"lower", "Lowered", "precision", "run", "close"}:
        assert name in names, name


def test_the_steps_name_files_that_engines_have() -> None:
    places = re.findall(r"`(src/paritas/[\w/<>.]+)`", _section())
    assert len(places) >= 4
    for place in places:
        assert (ROOT / place.replace("<engine>", "openvino")).exists(), place


def test_it_is_an_engine_for_everybody() -> None:
    assert paritas.engines()["toy"].version == np.__version__
    assert "toy" not in engine.default_engine()
    with pytest.raises(InputError, match=r"toy has no dtype 'bfloat16'; it has float32"):
        paritas.port(Two(), engine="toy", inputs={"x": torch.randn(2, 6)}, dtype="bfloat16")
    with pytest.raises(InputError, match=r"weights='int8' is for engine='openvino', not for toy"):
        paritas.port(Two(), engine="toy", inputs={"x": torch.randn(2, 6)}, weights="int8")
    with pytest.raises(InputError, match=r"toy has no target 'ascend'; it has cpu"):
        paritas.port(Two(), engine="toy", inputs={"x": torch.randn(2, 6)}, target="ascend")
    with pytest.raises(InputError, match="toy has no gradients"):
        _port().verify(gradients=True)


def test_what_it_lacks_is_said_at_once() -> None:
    class Lacking(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.erf(x) + torch.sinh(x)

    with pytest.raises(UnsupportedOps) as caught:
        paritas.port(Lacking(), engine="toy", inputs={"x": torch.randn(2, 6)})
    assert "aten.erf.default" in str(caught.value) and "aten.sinh.default" in str(caught.value)


def test_a_wrong_operator_is_named_and_bisected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    port = _port()
    assert port.verify().verdict == "agrees"
    right = toy.RULES["aten.layer_norm.default"]

    def forgetful(x: Any, sizes: Any, weight: Any, bias: Any, *rest: Any) -> Any:
        return right(x, sizes, weight, bias, 1e-1)

    monkeypatch.setitem(toy.RULES, "aten.layer_norm.default", forgetful)
    report = port.verify(level="nodes")
    assert report.verdict == "diverges"
    assert [row.target for row in report.guilty] == ["aten.layer_norm.default"]
    assert report.first_divergence is not None and report.first_divergence.path == "norm"
    found = port.bisect()
    assert found.verdict == "found" and [node.target for node in found.nodes] == ["aten.layer_norm.default"]
    assert found.method == "the steps of the part"
    script = port.bisect(out=tmp_path / "script").script
    assert script is not None and script.doubt == "no way to write it"


def test_a_part_is_lowered_again_where_a_session_cannot_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    port = _port()
    monkeypatch.delattr(toy.ToySession, "borders")
    monkeypatch.setitem(toy.RULES, "aten.relu.default", lambda x: np.maximum(x, 0.1))
    found = port.bisect()
    assert found.verdict == "found" and [node.target for node in found.nodes] == ["aten.relu.default"]
    assert found.method == "lowered again with the port's weights, with the sizes of the case"


def test_facts_are_told_without_any_engine() -> None:
    code = (
        "import sys; from paritas.run import engine; "
        "print([(one.label, one.modes, one.captured_in) for one in engine.all_about()], engine.default_engine()); "
        "heavy = {'torch', 'openvino', 'mindspore', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
