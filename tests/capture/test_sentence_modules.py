# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint of sentence-transformers has beside its transformer goes with its port."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import paritas
from paritas.capture import checkpoint as checkpoints
from paritas.capture import sentence_modules
from paritas.capture.source import minilm_directory
from paritas.errors import InputsNeeded, SourceError

TYPES = "sentence_transformers.models."


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """In the layout of old: the transformer below the top, weights of a dense layer pickled."""
    root = tmp_path / "checkpoint"
    modules = [
        {"idx": 0, "name": "0", "path": "0_Transformer", "type": f"{TYPES}Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{TYPES}Pooling"},
        {"idx": 2, "name": "2", "path": "2_Dense", "type": f"{TYPES}Dense"},
        {"idx": 3, "name": "3", "path": "3_Normalize", "type": f"{TYPES}Normalize"},
    ]
    for module in modules[:3]:
        (root / str(module["path"])).mkdir(parents=True)
    (root / "modules.json").write_text(json.dumps(modules))
    (root / "1_Pooling/config.json").write_text('{"pooling_mode": "mean"}')
    (root / "2_Dense/config.json").write_text('{"in_features": 3}')
    (root / "2_Dense/code.py").write_text("")
    torch.save({"linear.weight": torch.arange(6.0).reshape(2, 3)}, root / "2_Dense/pytorch_model.bin")
    return root


def test_folders_go_with_the_port_and_the_transformer_is_at_its_top(root: Path, tmp_path: Path) -> None:
    port = tmp_path / "port"
    port.mkdir()
    assert sentence_modules.copy(root, port) == ()
    assert [module["path"] for module in json.loads((port / "modules.json").read_text())] == [
        "", "1_Pooling", "2_Dense", "3_Normalize",
    ]  # fmt: skip
    found = sorted(str(path.relative_to(port)) for path in port.rglob("*") if path.is_file())
    assert found == ["1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "modules.json"]
    assert torch.equal(load_file(port / "2_Dense/model.safetensors")["linear.weight"], torch.arange(6.0).reshape(2, 3))


def _names(root: Path, position: int, **change: Any) -> None:
    modules = json.loads((root / "modules.json").read_text())
    modules[position] |= change
    (root / "modules.json").write_text(json.dumps(modules))


def test_what_cannot_go_is_said(root: Path, tmp_path: Path) -> None:
    port = tmp_path / "port"
    port.mkdir()
    _names(root, 3, type="own_code.Gate")
    (note,) = sentence_modules.copy(root, port)
    assert "own_code.Gate is code of its own" in note.text
    _names(root, 3, path="../elsewhere")
    with pytest.raises(SourceError, match="outside the checkpoint"):
        sentence_modules.copy(root, port)
    _names(root, 3, path="3_Normalize")
    torch.save(torch.nn.Linear(1, 1), root / "2_Dense/pytorch_model.bin")
    with pytest.raises(SourceError, match="weights-only loader; they were not executed"):
        sentence_modules.copy(root, port)
    assert sentence_modules.copy(tmp_path, port) == ()  # of no sentence-transformers


def test_its_weights_are_fetched_from_the_hub() -> None:
    files = ["modules.json", "model.safetensors", "1_Pooling/config.json", "2_Dense/model.safetensors", "x/y.bin"]
    assert "2_Dense/model.safetensors" in checkpoints._wanted(files, "")


def test_a_sentence_transformer_in_memory_says_how() -> None:
    models = pytest.importorskip("sentence_transformers")
    with pytest.raises(InputsNeeded, match=r"port_model\(model\[0\].auto_model\)"):
        paritas.port(models.SentenceTransformer(str(minilm_directory())))
