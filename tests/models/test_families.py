# SPDX-License-Identifier: Apache-2.0
"""Every family on every engine agrees with the original, on shapes, paddings and masks it was not captured with."""

from __future__ import annotations

import pytest
import torch

import paritas
from families import FAMILIES, build
from paritas.pipeline import with_mode

#: The product's bar, as the source documents define the figure: max|got-want| / mean|want|.
BAR = 1e-5


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[str, torch.nn.Module]:
    return request.param, build(request.param)


def test_mindspore_agrees_in_both_modes(family: tuple[str, torch.nn.Module]) -> None:
    name, model = family
    port = paritas.port(model, engine="mindspore", mode="graph")
    graph = port.verify(level="outputs")
    assert graph.verdict == "agrees", str(graph)
    assert graph.error <= BAR, str(graph)

    pynative = with_mode(port, "pynative").verify(level="modules")
    assert pynative.verdict == "agrees", str(pynative)
    assert pynative.error <= BAR, str(pynative)
    assert pynative.modules, name

    saved = {n for n, _ in port.session.cell.parameters_and_names()}
    assert saved == set(port.program().weights), "the cell's parameters are the checkpoint's"


def test_openvino_agrees(family: tuple[str, torch.nn.Module]) -> None:
    report = paritas.port(family[1], engine="openvino").verify(level="outputs")
    assert report.verdict == "agrees", str(report)
    assert report.error <= BAR, str(report)
