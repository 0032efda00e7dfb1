# SPDX-License-Identifier: Apache-2.0
"""An example that the model does not take is the user's mistake, told in a message, and no bug of ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from typer.testing import CliRunner

import paritas
from paritas.cli import app
from paritas.errors import InputError, OriginalFails

OWN = """
import torch

class Scaled(torch.nn.Module):
    def forward(self, x, lengths, scale=2.0):
        return x * lengths[:, None] * scale

def build():
    return Scaled()
"""


@pytest.fixture(scope="module")
def bert() -> transformers.BertForSequenceClassification:
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=99, num_hidden_layers=1, hidden_size=32, num_attention_heads=2, intermediate_size=64
        )
    ).eval()


@pytest.fixture(scope="module")
def place(bert: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    bert.save_pretrained(folder / "bert")
    (folder / "own.py").write_text(OWN)
    return folder


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"foo": torch.ones(1, 8)},
            "It got foo: float32[1, 8].\nfoo is none of BertForSequenceClassification.forward's",
        ),
        ({"input_ids": torch.ones(1, 8)}, "It got input_ids: float32[1, 8]."),
        ({"input_ids": torch.full((1, 8), 1000)}, "index out of range in self\nIt got input_ids: int64[1, 8]."),
        ({"input_ids": torch.ones(8).long()}, "It got input_ids: int64[8]."),
    ],
    ids=["unknown", "floats", "beyond the vocabulary", "no batch"],
)
def test_the_model_says_why_and_paritas_what_it_got(bert: Any, given: dict[str, torch.Tensor], text: str) -> None:
    with pytest.raises(OriginalFails, match="does not run on these inputs in PyTorch either") as caught:
        paritas.port(bert, inputs=given)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["bert", "--input", "foo=1x8"], "foo is none of BertForSequenceClassification.forward's arguments: input_ids"),
        (["own.py:build", "--input", "x=2x3"], "on the command line --input lengths=SHAPE"),
        (["own.py:build"], "--input x=SHAPE[:DTYPE] --input lengths=SHAPE[:DTYPE]"),
        (["own.py"], "Name what makes the model in it: own.py:build It has: Scaled, build."),
        (["none.py"], "There is no file none.py."),
        (["bert", "--engine", "ov"], "Did you mean 'openvino'?"),
    ],
)
def test_on_the_command_line_the_advice_is_an_option(
    place: Path, words: list[str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    done = CliRunner().invoke(app, ["port", *words, "--out", "out", "--no-verify", "-q"])
    assert done.exit_code == 2, done.output
    assert text in re.sub(r"\s+", " ", done.stderr)
    assert "bug in Paritas" not in done.stderr


def test_an_argument_that_was_left_out_is_fixed_at_its_default() -> None:
    space: dict[str, Any] = {}
    exec(OWN, space)  # noqa: S102
    port = paritas.port(space["build"](), inputs=(torch.randn(2, 3), torch.ones(2)))
    assert port(torch.ones(3, 4), torch.ones(3)).shape == (3, 4)
    with pytest.raises(InputError, match=r"made with forward's default, scale=2.0. Make one with it among its inputs"):
        port(torch.ones(3, 4), torch.ones(3), scale=3.0)
