# SPDX-License-Identifier: Apache-2.0
"""MindSpore as an export backend of transformers, through transformers' own classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers.exporters import AutoExportConfig, AutoHfExporter, ExportedModel

from families import build
from paritas.apps.hf_backend import MindSporeConfig, MindSporeExporter
from paritas.errors import ParitasError, TamperedPort


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return build("bert")


def _inputs(batch: int, length: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(0, 120, (batch, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    mask[0, length // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture(scope="module")
def exported(model: torch.nn.Module) -> ExportedModel:
    exporter = AutoHfExporter.from_config({"export_format": "mindspore"})
    assert isinstance(exporter, MindSporeExporter)
    return exporter.export(model, _inputs(2, 9), MindSporeConfig(dynamic=True))


def _agrees(exported: ExportedModel, model: torch.nn.Module, batch: int, length: int) -> None:
    inputs = _inputs(batch, length)
    with torch.no_grad():
        want, got = model(**inputs), exported(**inputs)
    assert type(got) is type(want)
    assert list(got) == list(want)
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-5, atol=1e-5)


def test_export_runs_like_the_original(exported: ExportedModel, model: torch.nn.Module) -> None:
    _agrees(exported, model, 2, 9)
    _agrees(exported, model, 3, 5)


def test_save_pretrained_and_from_pretrained(exported: ExportedModel, model: torch.nn.Module, tmp_path: Path) -> None:
    exported.save_pretrained(tmp_path / "exported")
    _agrees(ExportedModel.from_pretrained(tmp_path / "exported"), model, 1, 7)

    # Again into the same directory, as transformers allows.
    exported.save_pretrained(tmp_path / "exported")
    _agrees(ExportedModel.from_pretrained(tmp_path / "exported"), model, 2, 4)


def test_a_changed_module_is_not_executed(exported: ExportedModel, tmp_path: Path) -> None:
    exported.save_pretrained(tmp_path)
    module = tmp_path / "mindspore_model.py"
    module.write_text(module.read_text() + "\nraise SystemExit\n")
    with pytest.raises(TamperedPort, match=r"mindspore_model\.py"):
        ExportedModel.from_pretrained(tmp_path)


def test_the_config_round_trips() -> None:
    config = MindSporeConfig(dynamic=True, mode="pynative")
    assert AutoExportConfig.from_dict(config.to_dict()) == config


def test_unsupported_operators_are_an_error_of_ours(model: torch.nn.Module) -> None:
    class Odd(type(model)):  # type: ignore[misc]
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(super().forward(input_ids).last_hidden_state)

    odd = Odd(model.config).eval()
    with pytest.raises(ParitasError, match="cannot lower"):
        MindSporeExporter().export(odd, {"input_ids": torch.ones(2, 4, dtype=torch.long)}, MindSporeConfig())
