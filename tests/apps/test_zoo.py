# SPDX-License-Identifier: Apache-2.0
"""The zoo as data, and adding to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from paritas.apps.zoo import add
from paritas.apps.zoo import entries as zoo
from paritas.errors import ZooError

ZOO = Path(__file__).parents[1] / "zoo"


def entry(**inputs: object) -> zoo.Entry:
    return zoo.entry_of(
        {
            "name": "t/T", "model_type": "t", "library": "torch", "class": "torch.nn.Linear",
            "config": {"in_features": 3, "out_features": 2}, "inputs": inputs,
        }
    )  # fmt: skip


def test_every_entry_of_the_zoo_is_readable_and_named_once() -> None:
    entries = zoo.read(ZOO)
    assert len(entries) >= 700
    assert len({e.model_type for e in entries}) >= 400
    assert all(e.name.startswith(f"{e.model_type}/") or e.library != "transformers" for e in entries)


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ({"shape": [2, 3], "dtype": "int64", "dist": "const", "value": 4}, torch.full((2, 3), 4)),
        ({"shape": [2, 3], "dtype": "int64", "dist": "arange"}, torch.arange(3).expand(2, 3)),
        (
            {"shape": [2, 3], "dtype": "float32", "dist": "tile", "values": [1, 2, 3]},
            torch.tensor([[1.0, 2, 3]] * 2),
        ),
        (
            {"shape": [1, 4], "dtype": "int64", "dist": "const", "value": 0, "set": [[1, 3, 9]]},
            torch.tensor([[0, 9, 9, 0]]),
        ),
        ({"data": [[True]], "dtype": "bool"}, torch.tensor([[True]])),
    ],
)
def test_inputs_are_what_is_described(spec: dict[str, object], want: torch.Tensor) -> None:
    made = entry(x=spec).values()["x"]
    assert torch.equal(made, want) and made.dtype == want.dtype


def test_random_inputs_are_seeded_and_within_bounds() -> None:
    one = entry(x={"shape": [50], "dtype": "int64", "dist": "randint", "low": 5, "high": 9})
    assert torch.equal(one.values()["x"], one.values()["x"])
    assert not torch.equal(one.values()["x"], one.values(seed=1)["x"])
    assert one.values()["x"].min() >= 5 and one.values()["x"].max() < 9
    nested = entry(x={"dict": {"a": {"list": [{"py": 2}, {"py": None}]}}})
    assert nested.values() == {"x": {"a": (2, None)}}


def test_a_model_is_built_with_seeded_weights() -> None:
    one = entry()
    assert torch.equal(one.model().weight, one.model().weight)
    assert not one.model().training


def test_an_entry_is_replaced_by_one_of_its_name_and_others_stay(tmp_path: Path) -> None:
    first, second = entry(), zoo.entry_of({**_json(entry()), "name": "t/U"})
    zoo.write([first, second], tmp_path)
    changed = zoo.entry_of({**_json(first), "config": {"in_features": 5, "out_features": 2}})
    zoo.write([changed], tmp_path)
    found = {e.name: e for e in zoo.read(tmp_path)}
    assert found["t/T"].config["in_features"] == 5 and found["t/U"] == second
    assert found["t/T"].digest != first.digest


def _json(one: zoo.Entry) -> dict[str, object]:
    return {
        "name": one.name, "model_type": one.model_type, "library": one.library, "class": one.model_class,
        "config": dict(one.config), "inputs": dict(one.inputs),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "t.json is no file of a zoo"),
        ('[{"name": "t/T"}]', "The entry t/T has no class, config, inputs"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "t.json").write_text(text)
    with pytest.raises(ZooError, match=said):
        zoo.read(tmp_path)


def test_a_missing_zoo_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="--zoo PATH"):
        zoo.read(tmp_path)


def test_a_class_that_is_not_there_is_named() -> None:
    with pytest.raises(ZooError, match=r"torch\.nn\.Nonsense is not installed here"):
        zoo.entry_of({**_json(entry()), "class": "torch.nn.Nonsense"}).model()


@pytest.mark.parametrize("name", ["BertForMaskedLM", "CLIPModel", "Qwen3ForCausalLM"])
def test_a_class_is_added_in_one_step(tmp_path: Path, name: str) -> None:
    made, file = add.add(f"transformers.{name}", tmp_path)
    assert json.loads(file.read_text())[0]["name"] == made.name == add.entry_name(f"transformers.{name}")
    (again,) = zoo.read(tmp_path)
    model = again.model()
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    with torch.no_grad():
        model(**again.values())


def test_a_class_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="has no configuration class"):
        add.add("torch.nn.Linear", tmp_path)
