# SPDX-License-Identifier: Apache-2.0
"""What the README claims is run: its example, its commands, its generated code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from families import CLIP_TEXT

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
    assert (tmp_path / "bert-ms" / "port.json").is_file()


def test_the_example_of_generation_runs(tmp_path: Path) -> None:
    example = re.search(r"## Transformers, with the import changed\n.*?```python\n(.*?)```", README, re.S)
    assert example is not None
    run = subprocess.run([sys.executable, "-c", example[1]], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("torch.Size([1, 11])") == 2
    assert "<Port of LlamaForCausalLM to openvino, float32>" in run.stdout


def test_the_example_of_sizes_refuses_what_it_says(tmp_path: Path) -> None:
    example = re.search(r"\*\*Sizes\.\*\*.*?```python\n(.*?)```", README, re.S)
    assert example is not None
    (tmp_path / "merge.py").write_text(example[1])
    run = subprocess.run([sys.executable, "merge.py"], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout.splitlines() == ["torch.Size([2, 8, 4])"]
    assert "SizeError: x.shape[1] is 7: this port was made for x.shape[1] % 2 == 0" in run.stderr
    assert "if x.shape[1] % 2:" in run.stderr


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`paritas (\w+)", README))))
def test_every_command_exists(command: str) -> None:
    run = subprocess.run([sys.executable, "-m", "paritas", command, "--help"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z-]+)", README))))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


def test_the_generated_code_shown_is_generated() -> None:
    from paritas.capture import capture
    from paritas.lower.mindspore.write.module import generate

    shown = re.search(r"<!-- generated: CLIPMLP -->\n```python\n(.*?)```", README, re.S)
    assert shown is not None
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 1}
    config = transformers.CLIPTextConfig(**{**CLIP_TEXT, **sizes})
    source = generate(capture(transformers.CLIPTextModel(config).eval())).source
    assert _without_line_numbers(shown[1]).strip() in _without_line_numbers(source)


def _without_line_numbers(text: str) -> str:
    """Upstream's lines move with every release; ours do not."""
    return re.sub(r"(\w+\.py):\d+", r"\1", text)
