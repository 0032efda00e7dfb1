# SPDX-License-Identifier: Apache-2.0
"""What every engine must pass, torch included: the contract of `run.engine`, through `paritas.port`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

import paritas
from paritas.errors import InputError
from paritas.run import engine as known
from paritas.run.session import Cuts, Differentiates, Observes, StepsNodes
from paritas.run.torch.gradients import eager_gradients
from paritas.verify import Tolerance, compare
from paritas.verify.gradients import cotangents_of

#: One line per engine and mode.
ENGINES = [("torch", ""), ("openvino", ""), ("mindspore", "graph"), ("mindspore", "pynative"), ("toy", "")]

TOLERANCE = Tolerance(1e-5, 1e-6, "fp32, a few operators")


class Everything(torch.nn.Module):
    """Inputs and outputs of several dtypes and ranks, one input unused, one returned as it is, one output twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(6, 4)
        self.norm = torch.nn.LayerNorm(4)

    def forward(
        self, x: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, unused: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        hidden = self.norm(self.linear(x))
        kept = torch.where(mask.unsqueeze(-1), hidden, 0.0)
        return {
            "hidden": kept,
            "again": kept,
            "ids": ids,
            "next_ids": ids + 1,
            "visible": mask & (ids > 2),
            "mean": hidden.mean((0, 1, 2)),
        }


def _inputs(batch: int, length: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch * 100 + length)
    return {
        "x": torch.randn(batch, length, 6, generator=generator),
        "ids": torch.randint(0, 5, (batch, length), generator=generator),
        "mask": torch.rand(batch, length, generator=generator) > 0.4,
        "unused": torch.randn(batch, 3, generator=generator),
    }


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    made = Everything().eval()
    with torch.no_grad():
        made.norm.bias += torch.rand(4)  # else the mean is zero, and its error is as large as itself
    return made


@pytest.fixture(scope="module", autouse=True)
def toy() -> Iterator[None]:
    """The line that an engine is: here one of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(known.ENGINES, "toy", known.EngineSpec("toy:Toy", "toy:lower"))
        yield


@pytest.fixture(scope="module", params=ENGINES, ids="-".join)
def port(request: pytest.FixtureRequest, model: torch.nn.Module, toy: None) -> paritas.Port:
    engine, mode = request.param
    return paritas.port(model, engine=engine, mode=mode or "graph", inputs=_inputs(2, 5))


def _same(want: dict[str, torch.Tensor], got: dict[str, Any]) -> None:
    assert list(got) == list(want)
    for name, value in want.items():
        comparison = compare(value.numpy(), np.asarray(got[name]), TOLERANCE)
        assert comparison.agrees, f"{name}: {comparison}"


@pytest.mark.parametrize(("batch", "length"), [(2, 5), (1, 3), (3, 8)])
def test_agrees_on_other_shapes(port: paritas.Port, model: torch.nn.Module, batch: int, length: int) -> None:
    inputs = _inputs(batch, length)
    with torch.no_grad():
        _same(model(**inputs), port(**{name: value.numpy() for name, value in inputs.items()}))


def test_torch_in_torch_out(port: paritas.Port, model: torch.nn.Module) -> None:
    got = port(**_inputs(2, 4))
    assert all(isinstance(value, torch.Tensor) for value in got.values())
    with torch.no_grad():
        assert {n: v.dtype for n, v in model(**_inputs(2, 4)).items()} == {n: v.dtype for n, v in got.items()}


def test_mindspore_in_mindspore_out(port: paritas.Port) -> None:
    if port.manifest.engine != "mindspore":
        pytest.skip("MindSpore's thread pool stays out of the other engines' tests")
    import mindspore as ms

    got = port(**{name: ms.Tensor(value.numpy()) for name, value in _inputs(2, 4).items()})
    assert all(isinstance(value, ms.Tensor) for value in got.values())


def test_inputs_that_are_not_contiguous(port: paritas.Port, model: torch.nn.Module) -> None:
    inputs = _inputs(2, 6)
    strided = {**inputs, "x": inputs["x"].transpose(0, 1).contiguous().transpose(0, 1)}
    assert not strided["x"].is_contiguous()
    with torch.no_grad():
        _same(model(**inputs), {n: v.numpy() for n, v in port(**strided).items()})


def test_nan_and_infinity_go_through(port: paritas.Port, model: torch.nn.Module) -> None:
    inputs = _inputs(2, 5)
    inputs["x"][0, 0, 0], inputs["x"][1, 2, 3] = float("nan"), float("inf")
    inputs["mask"][:] = True
    with torch.no_grad():
        _same(model(**inputs), {n: v.numpy() for n, v in port(**inputs).items()})


def test_calls_do_not_share_memory(port: paritas.Port) -> None:
    first = port(**_inputs(2, 5))
    before = {name: value.clone() for name, value in first.items()}
    port(**_inputs(2, 5) | {"x": torch.zeros(2, 5, 6)})
    assert all(torch.equal(first[name], value) for name, value in before.items())


def test_an_engine_that_declares_gradients_has_the_originals(port: paritas.Port, model: torch.nn.Module) -> None:
    if not known.about(port.manifest.engine).differentiates:
        assert not hasattr(port.session, "gradients")
        return
    inputs = _inputs(2, 5)
    feed = port.feed(inputs)
    before = port.session.run(feed)
    cotangents = cotangents_of(before, seed=0)
    got = cast("Differentiates", port.session).gradients(feed, cotangents)
    want = eager_gradients(model, feed, cotangents, {}, {})
    assert set(got.parameters) == set(want.parameters) and set(got.inputs) == set(want.inputs) == {
        "x",
        "unused",
    }
    for name, value in {**want.parameters, **want.inputs}.items():
        mine = {**got.parameters, **got.inputs}[name]
        if value is None:
            assert mine is None or not mine.any(), name
        else:
            assert compare(value, mine, TOLERANCE).agrees, name
    for value, again in zip(before, port.session.run(feed), strict=True):
        assert np.array_equal(value, again)


def test_wrong_inputs_are_all_named_at_once(port: paritas.Port) -> None:
    inputs = _inputs(2, 5)
    inputs.pop("ids")
    inputs["x"] = inputs["x"][0]
    inputs["maks"] = inputs.pop("mask")
    with pytest.raises(InputError) as caught:
        port(**inputs)
    message = str(caught.value)
    assert "ids is missing" in message
    assert "maks" in message
    assert "mask" in message
    assert "x" in message


def test_saved_and_loaded(port: paritas.Port, model: torch.nn.Module, tmp_path: Path) -> None:
    if port.manifest.engine == "torch":
        pytest.skip("a torch port of a module in memory has no class to be loaded as")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        port.save(tmp_path / "port")
        loaded = paritas.load(tmp_path / "port", mode=port.mode)
    inputs = _inputs(3, 4)
    with torch.no_grad():
        _same(model(**inputs), loaded(**{name: value.numpy() for name, value in inputs.items()}))
    loaded.close()


def test_an_adapter_says_what_it_is_without_its_engine(port: paritas.Port) -> None:
    about = known.about(port.manifest.engine)
    assert about.name == port.manifest.engine and about.title(port.mode).startswith(about.label)
    assert port.mode in about.modes and port.manifest.target in about.targets
    assert about.precisions()["float32"] == ""
    assert about.capture_dtype("") is None and about.capture_dtype("float32") == "float32"


def test_it_verifies_down_to_its_nodes(port: paritas.Port) -> None:
    report = port.verify(_inputs(2, 5), level="nodes")
    assert report.verdict == "agrees", str(report)
    if isinstance(port.session, Observes):
        assert {row.path for row in report.modules} >= {"linear", "norm"} and not report.guilty
    if isinstance(port.session, StepsNodes):
        assert {row.target for row in report.nodes} >= {"aten.linear.default", "aten.layer_norm.default"}


def test_nothing_is_found_in_what_is_right(port: paritas.Port) -> None:
    assert isinstance(port.session, Cuts) or known.about(port.manifest.engine).is_original
    assert port.bisect(_inputs(2, 5)).verdict == "clean"
