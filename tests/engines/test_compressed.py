# SPDX-License-Identifier: Apache-2.0
"""Weights of 8 and 4 bits: smaller, said in the notes, and as far from the original as the report says."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

import paritas
import paritas.transformers as ours
from paritas.errors import InputError


def llama() -> hf.LlamaForCausalLM:
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=500, hidden_size=256, num_hidden_layers=2, num_attention_heads=4, intermediate_size=384,
        initializer_range=0.05,
    )  # fmt: skip
    return hf.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    return {}


@pytest.mark.parametrize(
    ("weights", "bits", "most"),
    [("", 32, 1e-5), ("bf16", 16, 0.05), ("fp16", 16, 1e-2), ("int8", 8, 0.5), ("int4", 4, 4.0)],
)
def test_fewer_bits_cost_what_the_report_says(sizes: dict[str, int], weights: str, bits: int, most: float) -> None:
    port = paritas.port(llama(), engine="openvino", weights=weights, task="text-generation")
    report = port.verify(level="outputs")
    assert report.error < most
    assert (report.verdict == "agrees") == (not weights)
    told = f"weights are {weights}:" if bits < 16 else f"weights are stored as {weights},"
    assert any(told in str(note) for note in report.notes) == bool(weights)
    sizes[weights] = (port.artifact.directory / "openvino_model.bin").stat().st_size
    assert sizes[weights] < sizes[""] * (bits + 4) / 32 + 1000 or not weights


def test_a_generation_runs_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARITAS_CACHE", "")
    ids = torch.randint(5, 400, (1, 9), generator=torch.Generator().manual_seed(0))
    options = {"max_new_tokens": 8, "do_sample": False}
    want = llama().generate(ids, **options)
    got = ours.port_model(llama(), engine="openvino", weights="int8").generate(ids, **options)
    assert got.shape == want.shape
    assert torch.equal(got[:, :10], want[:, :10])  # the first token at least


def test_what_is_not_possible_is_said_before_any_work() -> None:
    with pytest.raises(InputError, match="int8, int4, bf16 and fp16 are"):
        paritas.port(llama(), engine="openvino", weights="int3")
    with pytest.raises(InputError, match="for engine='openvino', not for mindspore"):
        ours.port_model(llama(), engine="mindspore", weights="int8")
