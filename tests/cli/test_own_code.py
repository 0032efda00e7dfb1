# SPDX-License-Identifier: Apache-2.0
"""Models named on the command line as the user's own code, and `paritas compare` with them."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paritas.cli import app
from paritas.cli.models import named
from paritas.errors import SourceError

runner = CliRunner()


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A file of its own name for each test: Python keeps what it has imported."""
    name = f"own_code_{abs(hash(request.node.name))}"
    text = """
    import torch

    class Small(torch.nn.Module):
        def __init__(self, bias=0.0):
            super().__init__()
            self.dense, self.bias = torch.nn.Linear(4, 4), bias

        def forward(self, x):
            return self.dense(x) + self.bias

    def build():
        return Small()

    def shifted():
        return Small(1e-9)

    def number():
        return 3

    def broken():
        raise KeyError("weights.pt")

    ready = Small()
    """
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.chdir(tmp_path)
    return name


def test_a_factory_a_class_and_a_module_are_named(code: str) -> None:
    for place in (code, f"{code}.py"):
        for factory in ("build", "Small", "ready"):
            assert type(named(f"{place}:{factory}")).__name__ == "Small"


def test_ids_and_directories_stay_as_they_are(tmp_path: Path) -> None:
    assert named("openai/clip-vit-base-patch32") == "openai/clip-vit-base-patch32"
    odd = tmp_path / "a:b"
    odd.mkdir()
    assert named(str(odd)) == str(odd)


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("none", "has no none"),
        ("number", "gives int, not a torch.nn.Module"),
        ("broken", "cannot be made: KeyError: 'weights.pt'\n  at "),
    ],
)
def test_what_makes_no_module_is_said(code: str, factory: str, words: str) -> None:
    with pytest.raises(SourceError) as raised:
        named(f"{code}:{factory}")
    assert words in str(raised.value)


def test_a_file_that_is_not_there_is_said(code: str) -> None:
    with pytest.raises(SourceError, match=r"There is no file absent.py"):
        named("absent.py:build")
    with pytest.raises(SourceError, match="cannot be made: ModuleNotFoundError"):
        named("absent.module:build")


def test_compare_exits_by_its_verdict(code: str) -> None:
    given = ["compare", f"{code}.py:build", f"{code}.py:build", "--input", "x=2x4", "--quiet"]
    done = runner.invoke(app, given)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"agrees: {code}.Small against {code}.Small")
    given[2] = f"{code}.py:shifted"
    done = runner.invoke(app, [*given, "--json", "--report", "found.md"])
    assert done.exit_code == 1, done.output  # 1e-9, which float32 cannot see
    assert json.loads(done.stdout)["verdict"] == "diverges"
    assert Path("found.md").read_text().startswith("# Re-implementation: diverges")


def test_compare_has_help_with_examples() -> None:
    text = " ".join(runner.invoke(app, ["compare", "--help"]).stdout.split())
    assert "Examples" in text
    assert "Exit codes: 0 all is well" in text


def test_nothing_to_suggest_is_bad_input(code: str) -> None:
    done = runner.invoke(app, ["compare", f"{code}.py:build", f"{code}.py:build", "--suggest"])
    assert done.exit_code == 2
    assert "All weights have their places: there is nothing to suggest." in done.output
