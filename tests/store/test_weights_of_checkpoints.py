# SPDX-License-Identifier: Apache-2.0
"""Weights that nothing has touched: a port has the checkpoint's own files, and both are safe from each other."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf

import paritas
from paritas import files, pipeline
from paritas.errors import PortError, TamperedPort

pytest.importorskip("mindspore")

IDS = {"input_ids": np.arange(8).reshape(2, 4), "attention_mask": np.ones((2, 4), np.int64)}


@pytest.fixture
def original(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint in several files, which counts as a large one."""
    monkeypatch.setattr(files, "FINAL", 1)
    model = hf.BertModel.from_pretrained(checkpoint)
    model.save_pretrained(tmp_path / "original", max_shard_size="30kB")
    return tmp_path / "original"


def _ported(original: Path) -> paritas.Port:
    port = paritas.port(original, engine="mindspore", mode="pynative")
    assert isinstance(port, paritas.Port)
    return port


def test_shards_are_linked_and_stay_their_owners(original: Path, tmp_path: Path) -> None:
    shards = sorted(original.glob("*.safetensors"))
    modes = [os.stat(path).st_mode for path in shards]
    assert len(shards) > 1
    port = _ported(original)
    want = port(**IDS)["last_hidden_state"]
    port.save(tmp_path / "port")
    assert all(path.samefile(tmp_path / "port" / path.name) for path in shards)
    assert not (tmp_path / "port" / "model.safetensors").exists()
    assert [os.stat(path).st_mode for path in shards] == modes
    assert any("checkpoint's own files" in str(note) for note in port.notes)
    loaded = pipeline.load_port(tmp_path / "port")
    np.testing.assert_array_equal(loaded(**IDS)["last_hidden_state"], want)
    loaded.save(tmp_path / "copy")  # of a port that was loaded nothing is known: a copy of its own
    assert not any(path.samefile(tmp_path / "copy" / path.name) for path in shards)
    data = bytearray(shards[0].read_bytes())
    data[-1] ^= 1
    shards[0].write_bytes(data)  # in its place, as save_pretrained does
    with pytest.raises(TamperedPort, match=shards[0].name):
        paritas.load(tmp_path / "port")
    np.testing.assert_array_equal(pipeline.load_port(tmp_path / "copy")(**IDS)["last_hidden_state"], want)


def test_what_was_written_to_meanwhile_is_not_saved(original: Path, tmp_path: Path) -> None:
    port = _ported(original)
    shard = min(original.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes())
    os.utime(shard, ns=(1, 1))
    with pytest.raises(PortError, match="written to since it was ported"):
        port.save(tmp_path / "port")
    assert not (tmp_path / "port").exists()


def test_on_another_disk_they_are_copied(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.Theirs, "shared", lambda self, path: False)
    port = _ported(original)
    want = port(**IDS)["last_hidden_state"]
    port.save(tmp_path / "port")
    assert not any(path.samefile(tmp_path / "port" / path.name) for path in original.glob("*.safetensors"))
    np.testing.assert_array_equal(pipeline.load_port(tmp_path / "port")(**IDS)["last_hidden_state"], want)


def test_other_weights_are_written(original: Path, tmp_path: Path) -> None:
    model = hf.BertModel.from_pretrained(original)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.mul_(2)
    model.save_pretrained(tmp_path / "other", max_shard_size="30kB")
    shard = min((tmp_path / "other").glob("*.safetensors"))
    port = paritas.port(tmp_path / "other", engine="mindspore", mode="pynative", dtype="float16")
    port.save(tmp_path / "port")
    assert (tmp_path / "port" / "model.safetensors").is_file() and not (tmp_path / "port" / shard.name).exists()
