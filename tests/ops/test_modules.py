# SPDX-License-Identifier: Apache-2.0
"""PyTorch's own list of modules through `paritas.port`: one call of each class, all of them with `-m slow`."""

from __future__ import annotations

import pytest
from gaps import FAILS, PASSES, WRONG, ModuleGap
from modules import complaints, samples, sweep, verdict
from under_test import ENGINES, OPENVINO, UnderTest

BAR = 0.99


@pytest.mark.slow
def test_a_call_of_every_class_agrees_on_openvino() -> None:
    found = [verdict(one, "openvino") for one in samples(each=1)]
    assert len(found) > 100
    assert complaints(found, OPENVINO) == []


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES.values(), ids=str)
def test_the_calls_of_every_class_agree(engine: UnderTest) -> None:
    pytest.importorskip(engine.name)
    found = list(sweep(engine.name))
    agree = sum(one.kind == PASSES for one in found)
    print(f"\n{engine}: {agree} of {len(found)} calls agree")
    assert complaints(found, engine) == []
    assert agree / len(found) >= BAR


def test_what_differs_or_agrees_against_the_table_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    one = next(one for one in samples(each=1) if one.name == "Linear")
    stale = dataclasses.replace(OPENVINO, module_gaps=[ModuleGap("Linear", WRONG, "", "it was wrong once")])
    assert "the gaps say wrong: it was wrong once" in complaints([verdict(one, "openvino")], stale)[0]
    monkeypatch.setattr(type(one), "want", lambda self: [self.args[0]])
    assert complaints([verdict(one, "openvino")], OPENVINO)[0].startswith("wrong: Linear[")
    monkeypatch.setattr("paritas.port", lambda *args, **options: 1 / 0)
    assert verdict(one, "openvino").kind == FAILS
