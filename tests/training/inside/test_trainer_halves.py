# SPDX-License-Identifier: Apache-2.0
"""transformers' Trainer with bf16=True and fp16=True: its log is PyTorch's under autocast, scaled steps included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as T
from test_trainer import _trainer

from paritas.transformers import Trainer


def _run(cls: Any, directory: Path, **more: Any) -> Any:
    trainer = _trainer(cls, directory, arguments=more)
    if trainer.accelerator.scaler is not None:  # so that it is changed in a few steps
        trainer.accelerator.scaler.set_growth_interval(2)
    trainer.train()
    return trainer


def _losses(trainer: Any) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "share"), [("bf16", 2e-3), ("fp16", 2e-4)])
def test_log_and_scale_are_pytorch_s(tmp_path: Path, asked: str, share: float) -> None:
    plain = _run(T.Trainer, tmp_path / "plain")
    got = _run(Trainer, tmp_path / "mindspore", **{asked: True})
    want = _run(lambda *given, **named: Trainer(*given, engine="torch", **named), tmp_path / "torch", **{asked: True})
    assert type(want.model.forward).__name__ == "method" and "_paritas" not in vars(want.model)
    assert _losses(want) != _losses(plain)  # accelerate does not leave it out
    assert _losses(got) == pytest.approx(_losses(want), rel=share)
    if asked == "fp16":
        scale = got.accelerator.scaler.get_scale()
        assert scale == want.accelerator.scaler.get_scale() != 65536.0
        saved = torch.load(tmp_path / "mindspore" / "checkpoint-5" / "scaler.pt")
        assert saved["scale"] == scale
    assert all(p.dtype == torch.float32 for p in got.model.parameters())


@pytest.mark.slow
def test_a_checkpoint_goes_on_with_its_scale(tmp_path: Path) -> None:
    whole = _run(Trainer, tmp_path / "whole", fp16=True)
    trainer = _trainer(Trainer, tmp_path / "again", arguments={"fp16": True})
    trainer.accelerator.scaler.set_growth_interval(2)
    trainer.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert trainer.accelerator.scaler.state_dict() == whole.accelerator.scaler.state_dict()
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, trainer.model.state_dict()[name]), name
