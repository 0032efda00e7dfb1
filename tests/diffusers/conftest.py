# SPDX-License-Identifier: Apache-2.0
"""A small pipeline on disk, and what the command makes of it: once for all tests of a process."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner


@pytest.fixture(scope="session")
def pipeline_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As diffusers writes it."""
    import tiny_pipelines

    place = tmp_path_factory.mktemp("original") / "pipeline"
    tiny_pipelines.stable_diffusion().save_pretrained(place)
    return place


@pytest.fixture(scope="session")
def ported_directory(pipeline_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `paritas port` writes it, for the sizes of its call alone, and verified."""
    from paritas.cli import app

    place = tmp_path_factory.mktemp("ported") / "pipeline"
    options = ["--static", "--level", "outputs", "--out", str(place), "-q"]
    result = CliRunner().invoke(app, ["port", str(pipeline_directory), *options])
    assert result.exit_code == 0, result.output
    assert "picture: agrees, in 8 bits the picture is equal" in result.stdout
    return place
