# SPDX-License-Identifier: Apache-2.0
"""A pipeline by its hub id, of which the hub's cache holds a snapshot: nothing is asked of the hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("diffusers")
import huggingface_hub

import paritas.diffusers as ours
from paritas.cli import app
from paritas.cli.commands.port_pipeline import INDEX, index_of


@pytest.fixture
def cached(pipeline_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The snapshot of org/pipeline, in a cache that also has the configuration of org/model."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    for name in ("pipeline", "model"):
        root = tmp_path / "hub" / f"models--org--{name}"
        (root / "refs").mkdir(parents=True)
        (root / "refs" / "main").write_text("c" * 40)
        (root / "snapshots" / ("c" * 40)).mkdir(parents=True)
    (root / "snapshots" / ("c" * 40) / "config.json").write_text("{}")
    place = tmp_path / "hub" / "models--org--pipeline" / "snapshots" / ("c" * 40)
    return Path(shutil.copytree(pipeline_directory, place, dirs_exist_ok=True))


def test_a_pipeline_is_told_from_a_model(cached: Path, pipeline_directory: Path) -> None:
    assert index_of("org/pipeline") == cached / INDEX
    assert index_of(str(pipeline_directory)) == pipeline_directory / INDEX
    for other in ("org/model", "org/nothing", "model", "./org/pipeline", "no id/at all", "a/b/c"):
        assert index_of(other) is None, other
    Path("org/pipeline").mkdir(parents=True)  # a directory of that name is meant
    assert index_of("org/pipeline") is None


def test_a_component_that_is_not_there_is_said(cached: Path) -> None:
    result = CliRunner().invoke(app, ["port", "org/pipeline", "--engine", "unnet=openvino", "--out", "port", "-q"])
    assert result.exit_code == 2
    assert "--engine names unnet, and the components are" in result.output


@pytest.mark.slow
def test_it_is_ported_and_verified(cached: Path, tmp_path: Path) -> None:
    place = tmp_path / "port"
    given = ["port", "org/pipeline", "--static", "--level", "outputs", "--out", str(place), "--json", "-q"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["verdict"] == "agrees" and set(told["engines"].values()) == {"openvino"}
    assert ours.DiffusionPipeline.from_pretrained(place).verify(level="outputs").agrees  # which finds the original
