# SPDX-License-Identifier: Apache-2.0
"""What a port costs on a text: perplexity and the most probable tokens, beside the error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from typer.testing import CliRunner

import paritas
from paritas.cli import app
from paritas.errors import InputError
from paritas.verify import ParityReport
from paritas.verify.text import GIVEN, SAMPLED, WINDOW

pytest.importorskip("openvino")

TEXT = "the quick brown fox jumps over the lazy dog, hello world " * 6


def _perplexity(model: Any, ids: torch.Tensor) -> float:
    """As transformers' own loss has it."""
    with torch.no_grad():
        return float(model(input_ids=ids, labels=ids).loss.exp())


@pytest.mark.parametrize("task", ["text-generation-with-past", "text-generation"])
def test_an_honest_port_foresees_a_text_as_well(causal: tuple[Path, Any, Any], task: str) -> None:
    directory, model, tokenizer = causal
    port = paritas.load(directory) if "past" in task else paritas.port(model, task=task)
    ids = tokenizer(TEXT, return_tensors="pt").input_ids[:, :90]
    assert 20 < ids.shape[1] < WINDOW
    report = port.verify(level="outputs", text=ids[0].tolist())
    cost = report.text
    assert cost is not None and cost.of == GIVEN and cost.tokens == ids.shape[1] - 1
    assert cost.perplexity == pytest.approx(_perplexity(model, ids), rel=1e-4)
    assert cost.port_perplexity == pytest.approx(cost.perplexity, rel=1e-4)
    assert cost.same == cost.tokens and abs(cost.divergence) < 1e-6
    assert f"## Text\n\nperplexity {cost.port_perplexity:.5g}" in report.to_markdown()
    assert 'id="r0-text"' in report.to_html()
    assert ParityReport.from_json(report.to_json()).text == cost


def test_fewer_bits_cost_more() -> None:
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=320, hidden_size=128, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.1,
    )  # fmt: skip
    model = hf.LlamaForCausalLM(config).eval()
    ported = paritas.port(model, weights="int8")
    found = {}
    for weights, port in (("int8", ported), ("int4", ported.to("openvino", weights="int4"))):
        report = port.verify(level="outputs")
        assert report.text is not None and report.text.of == SAMPLED and report.text.tokens == 4 * 47
        assert f"on {SAMPLED}" in str(report)
        found[weights] = report.text
    assert found["int8"].perplexity == found["int4"].perplexity  # of the same text
    assert 0 < found["int8"].divergence < found["int4"].divergence
    assert found["int4"].same < found["int4"].tokens
    assert found["int4"].port_perplexity != pytest.approx(found["int4"].perplexity, rel=1e-4)


def test_the_command_reads_a_file(causal: tuple[Path, Any, Any], tmp_path: Path) -> None:
    directory, model, tokenizer = causal
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    done = CliRunner().invoke(app, ["verify", str(directory), "--level", "outputs", "--text", str(file), "--json"])
    assert done.exit_code == 0, done.output
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    windows = [ids[:, at : at + WINDOW] for at in range(0, ids.shape[1], WINDOW)]
    counts = [max(window.shape[1] - 1, 0) for window in windows]
    total = sum(np.log(_perplexity(model, window)) * n for window, n in zip(windows, counts, strict=True) if n)
    cost = json.loads(done.stdout)["report"]["text"]
    assert cost["tokens"] == sum(counts)
    assert cost["perplexity"] == pytest.approx(float(np.exp(total / sum(counts))), rel=1e-4)


def test_what_cannot_be_read_is_said(causal: tuple[Path, Any, Any]) -> None:
    port = paritas.port(causal[1])
    with pytest.raises(InputError, match=r"has no tokenizer for the text .* text=\[1, 5, 7\]"):
        port.verify(text="some words")
    with pytest.raises(InputError, match="has 1 tokens"):
        port.verify(text=[5])
    linear = paritas.port(torch.nn.Linear(3, 3), inputs={"input": torch.ones(2, 3)})
    with pytest.raises(InputError, match="It has no logits"):
        linear.verify(text=[1, 2])
