# SPDX-License-Identifier: Apache-2.0
"""A checkpoint is gone on with only if it is whole and of this model."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from paritas.errors import InputError
from paritas.transformers import checkpoints


def _checkpoint(directory: Path, step: int) -> Path:
    path = directory / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}, path / checkpoints.WEIGHTS)
    torch.save({"state": torch.zeros(100)}, path / "optimizer.pt")
    torch.save({"cpu": torch.zeros(4)}, path / "rng_state.pth")
    (path / checkpoints.STATE).write_text(json.dumps({"global_step": step}))
    return path


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("name", [checkpoints.WEIGHTS, "optimizer.pt", "rng_state.pth", checkpoints.STATE])
def test_a_file_that_ends_too_early_is_named(tmp_path: Path, name: str) -> None:
    path = _checkpoint(tmp_path, 3)
    checkpoints.check_whole(path)
    _cut(path / name)
    with pytest.raises(InputError, match=rf"checkpoint-3 is cut: {name} ends too early"):
        checkpoints.check_whole(path)


def test_one_without_its_state_is_cut(tmp_path: Path) -> None:
    path = _checkpoint(tmp_path, 3)
    (path / checkpoints.STATE).unlink()
    assert checkpoints.fault(path) == "it has no trainer_state.json, which is written last"
    with pytest.raises(InputError, match="There is no checkpoint"):
        checkpoints.check_whole(tmp_path / "checkpoint-9")


def test_the_last_that_is_whole_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert checkpoints.last_whole(tmp_path) is None
    paths = [_checkpoint(tmp_path, step) for step in (8, 10, 12)]
    assert checkpoints.last_whole(tmp_path) == paths[2]
    _cut(paths[2] / "optimizer.pt")
    with caplog.at_level(logging.WARNING, logger="paritas.dropin"):
        assert checkpoints.last_whole(tmp_path) == paths[1]
    assert "checkpoint-10 is gone on with: checkpoint-12 (optimizer.pt ends too early)" in caplog.text
    for path in paths[:2]:
        _cut(path / checkpoints.WEIGHTS)
    with pytest.raises(InputError, match=r"No checkpoint in .* is whole: checkpoint-12 .*checkpoint-10 .*checkpoint-8"):
        checkpoints.last_whole(tmp_path)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (torch.nn.Linear(2, 3), ""),
        (torch.nn.Linear(2, 4), r"is of another model than this Linear: bias is \(3,\) and not \(4,\)"),
        (torch.nn.Linear(2, 3, bias=False), "bias is not in this model"),
        (torch.nn.Sequential(torch.nn.Linear(2, 3)), "bias is not in this model; .*, and 1 more"),
    ],
)
def test_one_of_another_model_is_refused(tmp_path: Path, model: torch.nn.Module, message: str) -> None:
    path = _checkpoint(tmp_path, 1)
    if not message:
        checkpoints.check_fits(path, model)
        return
    with pytest.raises(InputError, match=message):
        checkpoints.check_fits(path, model)
