# SPDX-License-Identifier: Apache-2.0
"""Every family on every engine agrees with the original, on shapes, paddings and masks it was not captured with."""

from __future__ import annotations

import dataclasses

import pytest

import paritas
from families import FAMILIES, KINDS, build
from paritas.modes import with_mode
from paritas.verify import Case, generate
from paritas.verify.inputs.sizes import size_ranges

#: The product's bar, as the source documents define the figure: max|got-want| / mean|want|.
BAR = 1e-5

#: The cases for every day: a graph compiles anew for each shape, which is what takes the time.
DAILY = ("longer", "left padding", "batch 1")


def _cases(port: paritas.Port) -> list[dict]:
    cases: tuple[Case, ...] = generate(port.inputs, limits=size_ranges(port.manifest.limits))
    chosen = [case for case in cases if any(word in case.name for word in DAILY)]
    return [dict(case.feed) for case in (chosen or cases)][:2]


def _one_call(family: str) -> str:
    """The task of a family whose generated cases are those of one call: generations are played in tests/deploy."""
    return "text-generation" if family in ("llama", "gpt2-lm") else ""


@pytest.mark.parametrize("family", KINDS)
def test_agrees_on_every_engine_and_mode(family: str) -> None:
    graph = paritas.port(build(family), engine="mindspore", mode="graph", task=_one_call(family))
    assert set(graph.session.cell.parameters_dict()) == set(graph.program().weights), "the checkpoint's own names"
    cases = _cases(graph)
    pynative, openvino = with_mode(graph, "pynative"), graph.to("openvino")
    # In Graph mode, where each shape is compiled, on one of them; on all of them with the sweeps.
    for port, given, level in (
        (graph, cases[:1], "outputs"),
        (pynative, cases, "modules"),
        (openvino, cases, "outputs"),
    ):
        report = port.verify(given, level=level)
        assert report.verdict == "agrees", str(report)
        assert report.error <= BAR, str(report)
        if level == "modules":
            assert report.modules, "what leaves the modules was seen"
        port.close()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_agrees_on_all_generated_cases(family: str) -> None:
    port = paritas.port(build(family), engine="mindspore", task=_one_call(family))
    for one in (port, port.to("openvino")):
        report = one.verify()
        assert report.verdict == "agrees", str(report)
        assert report.error <= BAR, str(report)


def test_a_wrong_weight_is_found_in_its_module() -> None:
    """The verification of models can fail, and says where."""
    port = paritas.port(build("bert"), engine="mindspore", mode="pynative")
    weight = port.session.cell.parameters_dict()["encoder.layer.1.intermediate.dense.bias"]
    weight.set_data(weight + 0.01)
    report = port.verify(_cases(port)[:1], level="modules")
    assert report.verdict == "diverges"
    assert report.first_divergence is not None
    assert "encoder.layer.1.intermediate" in str(report.first_divergence)
    assert dataclasses.is_dataclass(report)
