# SPDX-License-Identifier: Apache-2.0
"""Versions come and go while requests are answered: none fails, none is answered by two."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paritas.errors import InputError
from paritas.program import TensorSpec
from paritas.serve import configs
from paritas.serve.messages import serving
from paritas.serve.refusals import Refused
from paritas.serve.registry import ModelConfig, Registry, checked, models_in
from paritas.serve.settings import Batching, Engine, Settings

SETTINGS = Settings(poll=0, engine=Engine(warm=False))


class Toy:
    """A servable that answers its version, or fails to be opened."""

    reader = answer = None
    labels = ()

    def __init__(self, directory: Path, name: str, version: int) -> None:
        from paritas.serve.model import Signature, TensorInfo

        word = (directory / "port.json").read_text()
        if word == "broken":
            raise InputError("This one is broken.")
        self.name, self.version, self.word = name, version, word
        x, y = TensorInfo("x", "float32", (None,)), TensorInfo("y", "float32", (None,))
        self.signatures = {"serving_default": Signature("serving_default", {"x": x}, {"y": y})}
        self.port: Any = self
        self.inputs, self.outputs = (TensorSpec("x", "float32", ("s0",)),), (TensorSpec("y", "float32", ("s0",)),)
        self.closed = False

    def signature(self, name: str = "") -> Any:
        return self.signatures[name or "serving_default"]

    def prepare(self, signature: Any, inputs: Any) -> Any:
        return dict(inputs)

    def compute(self, feed: Any) -> Any:
        assert not self.closed
        return {"y": feed["x"] * 0 + float(self.word)}

    def finish(self, signature: Any, outputs: Any) -> Any:
        return outputs

    def close(self) -> None:
        self.closed = True


def put(base: Path, version: int, word: str) -> None:
    place = base / str(version)
    place.mkdir(parents=True, exist_ok=True)
    (place / "new.json").write_text(word)
    (place / "new.json").rename(place / "port.json")


def served(
    base: Path, work: Callable[[Registry], Coroutine[Any, Any, Any]], settings: Settings = SETTINGS, **how: Any
) -> tuple[Any, list[str]]:
    """What a coroutine makes of a registry of the model `m`, and what the registry said."""
    said: list[str] = []

    async def run() -> Any:
        registry = Registry([ModelConfig("m", base, **how)], settings, say=said.append, opened=Toy)  # type: ignore[arg-type]
        await registry.start()
        try:
            return await work(registry)
        finally:
            await registry.stop()

    return asyncio.run(run()), said


async def ask(registry: Registry, **which: Any) -> float:
    with registry.admit("m"), registry.lease("m", **which) as version:
        assert version.batcher is not None
        found = await version.batcher.submit(version.servable.signature(), {"x": np.zeros(2, np.float32)})
        assert len(set(found["y"].tolist())) == 1
        return float(found["y"][0])


def test_a_new_version_takes_over_and_the_old_one_ends(tmp_path: Path) -> None:
    put(tmp_path, 1, "1")

    async def work(registry: Registry) -> list[Any]:
        first = await ask(registry)
        with registry.lease("m") as held:
            put(tmp_path, 2, "2")
            await registry.scan()
            second = await ask(registry)
            states = {one.number: one.state for one in registry.statuses("m")}
            assert held.batcher is not None
            still = await held.batcher.submit(held.servable.signature(), {"x": np.zeros(1, np.float32)})
        await asyncio.sleep(0.05)
        return [first, second, states, float(still["y"][0]), registry.statuses("m", 1)[0].state]

    found, said = served(tmp_path, work)
    assert found == [1.0, 2.0, {2: "AVAILABLE", 1: "UNLOADING"}, 1.0, "END"]
    assert sum("Successfully loaded" in line for line in said) == 2


def test_a_broken_version_is_reported_and_the_old_one_answers_until_it_is_mended(tmp_path: Path) -> None:
    put(tmp_path, 1, "1")

    async def work(registry: Registry) -> list[Any]:
        put(tmp_path, 2, "broken")
        await registry.scan()
        await registry.scan()  # it is not tried again and again
        told = registry.statuses("m", 2)[0]
        answers = [await ask(registry), registry.ready]
        put(tmp_path, 2, "2")
        await registry.scan()
        return [told.state, str(told.error), *answers, await ask(registry)]

    found, said = served(tmp_path, work)
    assert found == ["END", "This one is broken.", 1.0, True, 2.0]
    assert sum("cannot be loaded" in line for line in said) == 1


def test_files_that_change_under_a_version_are_loaded_beside_it(tmp_path: Path) -> None:
    put(tmp_path, 1, "1")

    async def work(registry: Registry) -> list[float]:
        before = await ask(registry)
        put(tmp_path, 1, "1.5")
        await registry.scan()
        return [before, await ask(registry)]

    assert served(tmp_path, work)[0] == [1.0, 1.5]


def test_labels_and_policies(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        put(tmp_path, number, str(number))

    async def work(registry: Registry) -> list[Any]:
        found: list[Any] = [await ask(registry), await ask(registry, label="stable"), await ask(registry, version=2)]
        for which in ({"version": 1}, {"label": "nothing"}):
            with pytest.raises(Refused) as refused:
                await ask(registry, **which)
            found.append(refused.value.code)
        return found

    found = served(tmp_path, work, latest=2, labels={"stable": 2})[0]
    assert found == [3.0, 2.0, 2.0, "NOT_FOUND", "INVALID_ARGUMENT"]
    assert served(tmp_path, lambda registry: ask(registry, version=1), versions=(1,))[0] == 1.0


def test_fifty_reloads_under_load(tmp_path: Path) -> None:
    put(tmp_path, 1, "1")

    async def work(registry: Registry) -> tuple[int, list[float]]:
        done, answers, failed = asyncio.Event(), [], 0

        async def client() -> None:
            nonlocal failed
            while not done.is_set():
                try:
                    answers.append(await ask(registry))
                except Exception:  # noqa: BLE001 - counted
                    failed += 1

        clients = [asyncio.create_task(client()) for _ in range(8)]
        for number in range(2, 52):
            put(tmp_path, number, str(number))
            await registry.scan()
            shutil.rmtree(tmp_path / str(number - 1))
        done.set()
        await asyncio.gather(*clients)
        return failed, [*answers, await ask(registry)]

    (failed, answers), _ = served(tmp_path, work)
    assert failed == 0
    assert len(set(answers)) > 25
    assert answers[-1] == 51.0


def test_a_folder_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    put(tmp_path, 1, "1")

    async def work(registry: Registry) -> float:
        shutil.rmtree(tmp_path / "1")
        await registry.scan()
        return await ask(registry)

    assert served(tmp_path, work)[0] == 1.0


def test_a_full_queue_refuses(tmp_path: Path) -> None:
    put(tmp_path, 1, "1")

    async def work(registry: Registry) -> list[Any]:
        with registry.admit("m"), registry.admit("m"), pytest.raises(Refused) as refused, registry.admit("m"):
            pass
        return [refused.value.code, refused.value.after >= 1, registry.models["m"].open, await registry.drained(0.1)]

    settings = Settings(poll=0, engine=Engine(warm=False), batching=Batching(queue=2))
    assert served(tmp_path, work, settings)[0] == ["RESOURCE_EXHAUSTED", True, 0, True]


# --- which models ------------------------------------------------------------------------------

CONFIG = """
model_config_list {
  config { name: "a" base_path: "/models/a" model_platform: "tensorflow"
           model_version_policy { specific { versions: 3 versions: 5 } }
           version_labels { key: "stable" value: 3 } }
  config { name: "b" base_path: "/models/b" model_version_policy { all {} } }
  config { name: "c" base_path: "/models/c" model_version_policy { latest { num_versions: 2 } } }
}
"""


def test_a_file_of_models(tmp_path: Path) -> None:
    (tmp_path / "models.config").write_text(CONFIG)
    a, b, c = configs.of_file(tmp_path / "models.config")
    assert (a.name, a.directory, a.versions, a.labels) == ("a", Path("/models/a"), (3, 5), {"stable": 3})
    assert (b.latest, c.latest) == (0, 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense {", "is no ModelServerConfig"),
        ("", "Only a model_config_list is served"),
        ("model_config_list { }", "No model is named"),
        ('model_config_list { config { name: "a" } }', "has no base_path"),
        ('model_config_list { config { name: "a/b" base_path: "/x" } }', "cannot be a model's name"),
        (
            'model_config_list { config { name: "a" base_path: "/x" } config { name: "a" base_path: "/y" } }',
            "Two models are called a",
        ),
    ],
)
def test_wrong_files_of_models(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "models.config").write_text(text)
    with pytest.raises(InputError, match=says):
        configs.of_file(tmp_path / "models.config")


def test_folders_of_models(tmp_path: Path) -> None:
    put(tmp_path / "a", 1, "1")
    put(tmp_path / "b", 7, "7")
    (tmp_path / "c").mkdir()
    assert [one.name for one in models_in(tmp_path)] == ["a", "b"]
    with pytest.raises(InputError, match="NAME/VERSION/"):
        models_in(tmp_path / "c")
    with pytest.raises(InputError, match="slash, colon or space"):
        checked([ModelConfig("a b", tmp_path)])


def test_a_reload_by_message(tmp_path: Path) -> None:
    put(tmp_path / "a", 1, "1")
    put(tmp_path / "b", 2, "2")
    message = serving("ModelServerConfig")()
    message.model_config_list.config.add(name="b", base_path=str(tmp_path / "b"))

    async def run() -> list[Any]:
        registry = Registry([ModelConfig("a", tmp_path / "a")], SETTINGS, opened=Toy)  # type: ignore[arg-type]
        await registry.start()
        before = list(registry.models)
        await registry.configure(configs.of_message(message))
        found = [before, list(registry.models), registry.ready]
        await registry.stop()
        return found

    assert asyncio.run(run()) == [["a"], ["b"], True]
