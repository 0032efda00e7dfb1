# SPDX-License-Identifier: Apache-2.0
"""What the README claims is run: its examples, its commands. Its generated parts are tests/test_docs.py's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paritas.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs(tmp_path: Path) -> None:
    example = re.search(r"## Use\n\n```python\n(.*?)```", README, re.S)
    assert example is not None
    run = subprocess.run([sys.executable, "-c", example[1]], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    verdict, error = run.stdout.split()
    assert verdict == "agrees"
    assert float(error) < 1e-5
    assert (tmp_path / "bert-openvino" / "port.json").is_file()
    loading = re.search(r"Where it runs.*?```python\n(.*?)```", README, re.S)
    assert loading is not None
    run = subprocess.run([sys.executable, "-c", loading[1]], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout == "(1, 3, 64)\n", run.stderr


def test_the_example_of_generation_runs(tmp_path: Path) -> None:
    example = re.search(r"With the import changed.*?```python\n(.*?)```", README, re.S)
    assert example is not None
    run = subprocess.run([sys.executable, "-c", example[1]], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n") == ["torch.Size([1, 11])", ""]


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`paritas (\w+)", README))))
def test_every_command_exists(command: str) -> None:
    told = CliRunner().invoke(app, [command, "--help"])
    assert told.exit_code == 0, told.output


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z-]+)", README))))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


def test_a_newcomer_reads_it_in_one_go() -> None:
    assert len(README.splitlines()) <= 170
