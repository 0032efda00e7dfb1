# SPDX-License-Identifier: Apache-2.0
"""`paritas convert clip` and `paritas difference`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from conftest import state
from paritas.apps import difference
from paritas.cli.app import app
from paritas.open_clip import checkpoints, conversion


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors", ".pt"])
def test_weights_become_a_file_of_another_kind(suffix: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / f"out{suffix}"
    done = CliRunner().invoke(app, ["convert", "clip", str(folder / "ViT-B-32.pt"), str(out), "--model", "tiny", "-q"])
    assert done.exit_code == 0, done.output
    assert (
        f"{len(state())} tensors" in done.output and "They are tiny's, name by name and shape by shape" in done.output
    )
    assert not conversion.differing(state(), checkpoints.read(out))
    again = CliRunner().invoke(app, ["convert", "clip", str(folder / "ViT-B-32.pt"), str(out), "-q"])
    assert again.exit_code == 2 and "is there already" in again.output


def test_what_does_not_fit_is_listed(folder: Path, tmp_path: Path) -> None:
    command = ["convert", "clip", str(folder / "ViT-B-32.pt"), str(tmp_path / "o.pt"), "--model", "shallow", "-q"]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 1
    found = json.loads(done.output)
    assert len(found["unexpected"]) == 24 and found["absent"] == [] and found["reshaped"] == []
    assert all("resblocks.1." in name for name in found["unexpected"])


def test_a_tensor_that_differs_is_found() -> None:
    wanted = {"a": torch.ones(2), "nan": torch.tensor([float("nan")])}
    assert conversion.differing(wanted, dict(wanted)) == []
    for name, other in {
        "value": {"a": torch.tensor([1, 1.0000001])},
        "dtype": {"a": torch.ones(2).half()},
        "shape": {"a": torch.ones(2, 1)},
        "zero": {"a": torch.tensor([1.0, -0.0])},
    }.items():
        assert conversion.differing(wanted, {**wanted, **other}) == ["a"], name
    assert conversion.differing(wanted, {"a": wanted["a"], "b": wanted["a"]}) == ["b", "nan"]


def test_the_handbooks_difference_is_measured(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    command = ["difference", "tiny", "--pretrained", str(folder / "ViT-B-32.ckpt"), "--engine", "openvino", "-q"]
    strict = ["--most", "0", "--json", "--out", str(out)]  # so that there is a difference that is over the bar
    done = CliRunner().invoke(app, [*command, "--image", str(folder / "CLIP.png"), *strict])
    assert done.exit_code == 1, done.output
    assert [line.split(" | ")[2] for line in out.read_text().splitlines()[2:]] == list(difference.OUTPUTS)
    assert all(0 < row["relative"] < 1e-4 for row in json.loads(done.output))
    missing = CliRunner().invoke(app, ["difference", "tiny", "--image", str(tmp_path / "no.png"), "-q"])
    assert missing.exit_code == 2 and "There is no file" in missing.output


def test_the_handbooks_figures_are_those_of_the_architecture() -> None:
    assert difference._published("RN50", "", "probs") == (0.00194565, 0.0080727)
    assert difference._published("RN50", "openai", "probs") == (0.00003248, 0.0030192)
    assert difference._published("ViT-B-32-quickgelu", "", "image_features") == (0.00092272, 0.0141578)
    assert difference._published("ViT-H-14", "", "text_features") == (0.00059179, 0.0090787)
    assert difference._published("convnext_base", "", "probs") is None
