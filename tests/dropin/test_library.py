# SPDX-License-Identifier: Apache-2.0
"""What namespaces say of a library holds together, in whatever order they are imported."""

from __future__ import annotations

import types
from typing import Any

import pytest

from paritas.dropin import library
from paritas.dropin.library import Library, is_hooked, is_of_models, register

PLAIN = Library("shapes", models=("shapes.models.",))
HOOKED = Library("shapes", models=("shapes.more.",), registry="_shapes_hooks")


@pytest.fixture(autouse=True)
def none_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_libraries", {})
    monkeypatch.setattr(library, "IGNORED", set(library.IGNORED))


@pytest.mark.parametrize("order", [(PLAIN, HOOKED), (HOOKED, PLAIN)])
def test_a_second_namespace_takes_nothing_away(order: tuple[Library, Library]) -> None:
    for one in order:
        register(one)
    module: Any = types.SimpleNamespace(_shapes_hooks=types.SimpleNamespace(hooks={"cache": object()}))
    assert is_hooked(module)
    assert is_of_models("shapes.models.round") and is_of_models("shapes.more.square")


def test_hooks_are_in_one_attribute() -> None:
    register(HOOKED)
    with pytest.raises(ValueError, match="_shapes_hooks already"):
        register(Library("shapes", registry="_others"))
