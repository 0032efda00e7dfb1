# SPDX-License-Identifier: Apache-2.0
"""Ports of models that generate, in openvino-genai, which nobody here wrote: it opens the directory as it is."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.deploy.causal import MODELS, saved, tokenizer_of_bytes

import paritas
from paritas.errors import InputError, InputsNeeded

openvino = pytest.importorskip("openvino")
genai = pytest.importorskip("openvino_genai")

TASK = "text-generation-with-past"
TEXTS = ("the quick brown", "Hello world, 123")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_of_bytes()


@pytest.mark.parametrize("name", [*(pytest.param(n, marks=() if n == "llama" else pytest.mark.slow) for n in MODELS)])
def test_its_tokens_are_pytorchs(name: str, tokenizer: Any, tmp_path: Path) -> None:
    model = saved(name, tokenizer, tmp_path / "original")
    port = paritas.port(tmp_path / "original", task=TASK)
    report = port.verify(level="outputs")
    assert report.verdict == "agrees", str(report)
    assert not [str(note) for note in port.notes if "tokenizer" in str(note)]
    port.save(tmp_path / "port")
    properties = json.loads((tmp_path / "port" / "ov_config.json").read_text())
    pipeline = genai.LLMPipeline(tmp_path / "port", "CPU", **properties)
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")
        given = genai.TokenizedInputs(
            openvino.Tensor(ids.input_ids.numpy()), openvino.Tensor(ids.attention_mask.numpy())
        )
        for beams in (1, 3):
            want = model.generate(
                **ids, max_new_tokens=20, min_new_tokens=20, do_sample=False, num_beams=beams, pad_token_id=2
            )[0, ids.input_ids.shape[1] :]
            config = genai.GenerationConfig(
                max_new_tokens=20, min_new_tokens=20, num_beams=beams, apply_chat_template=False, eos_token_id=1
            )
            assert pipeline.generate(given, config).tokens[0] == want.tolist(), (text, beams)
            assert len(set(want.tolist())) > 3  # a model that repeats one token would hide mistakes
            spelt = tokenizer.decode(want, skip_special_tokens=True)
            # Random bytes are no UTF-8: for some of them a sign stands, and not for as many in both.
            assert pipeline.generate(text, config).replace("\ufffd", "") == spelt.replace("\ufffd", "")
    del pipeline
    gc.collect()


def test_a_call_without_a_cache_begins(tokenizer: Any, tmp_path: Path) -> None:
    model = saved("llama", tokenizer, tmp_path / "original")
    paritas.port(tmp_path / "original", task=TASK).save(tmp_path / "port")
    port = paritas.load(tmp_path / "port")
    ids = torch.randint(3, 60, (2, 7))
    with torch.no_grad():
        want = model(input_ids=ids).logits.numpy()
    mask, positions = np.ones((2, 7), np.int64), np.arange(7)[None].repeat(2, 0)
    out = port(input_ids=ids[:, :5].numpy(), attention_mask=mask[:, :5], position_ids=positions[:, :5])
    np.testing.assert_allclose(out["logits"], want[:, :5], atol=1e-5)
    out = port(
        input_ids=ids[:, 5:].numpy(),
        attention_mask=mask,
        position_ids=positions[:, 5:],
        past_key_values=out["past_key_values"],
    )
    np.testing.assert_allclose(out["logits"], want[:, 5:], atol=1e-5)


def test_a_task_that_a_model_has_not_is_refused(checkpoint: Path) -> None:
    with pytest.raises(InputsNeeded, match="BertModel does not write text after a text"):
        paritas.port(checkpoint, task=TASK)
    with pytest.raises(InputError, match="There is no task 'poetry'"):
        paritas.port(checkpoint, task="poetry")
    with pytest.raises(InputError, match="has inputs of its own"):
        paritas.port(checkpoint, task=TASK, inputs={"input_ids": torch.ones(2, 3, dtype=torch.int64)})
