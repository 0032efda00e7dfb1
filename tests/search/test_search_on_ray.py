# SPDX-License-Identifier: Apache-2.0
"""Texts are embedded on a Ray cluster on this machine, and are in the index as if they had been embedded here."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hashed import Hashed

from paritas.apps.search import on_ray, places
from paritas.apps.search.indexing import add_rows
from paritas.apps.search.reading import Row
from paritas.errors import InputError
from paritas.extras import missing

pytestmark = pytest.mark.slow

if missing("search"):
    pytest.skip("paritas[search] is not installed", allow_module_level=True)
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[data]'")

SETTINGS = {"text": "text", "split": "verses", "key": ""}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    yield "local"
    ray.shutdown()


def _embeds(make: Any, address: str) -> Any:
    return lambda here: lambda batches: on_ray.embedded(batches, make, here.identity, address, 2)


def test_an_index_made_on_a_cluster(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paritas.apps.search.indexing.TOGETHER", 40)
    monkeypatch.setattr(on_ray, "ROUND", 4)
    some = [Row(str(n), f"text {n}\n\nrain and {n % 7}", {"n": n}) for n in range(300)]
    add_rows(tmp_path / "here", some, Hashed(), SETTINGS)
    embeds = _embeds(Hashed, address)
    done = add_rows(tmp_path / "there", some[:200], Hashed(), SETTINGS, embeds=embeds)
    assert (done.documents, done.passages) == (200, 400)
    done = add_rows(tmp_path / "there", some, Hashed(), SETTINGS, embeds=embeds)
    assert (done.known, done.documents) == (200, 100)
    found = []
    for name in ("here", "there"):
        with places.opened(tmp_path / name) as index:
            index.check()
            found.append({(one.key, one.text): one.vector for one in index.passages()})
    assert found[0].keys() == found[1].keys()
    assert all(np.array_equal(found[0][one], found[1][one]) for one in found[0])


def test_another_model_on_a_machine(address: str, tmp_path: Path) -> None:
    embeds = _embeds(functools.partial(Hashed, "another"), address)
    with pytest.raises(InputError, match=r"--ray local: .*: The index was made by hashed .* cannot be compared"):
        add_rows(tmp_path / "x", [Row("1", "text", {})], Hashed(), SETTINGS, embeds=embeds)
    assert not places.exists(tmp_path / "x")
