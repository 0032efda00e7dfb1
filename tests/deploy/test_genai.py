# SPDX-License-Identifier: Apache-2.0
"""Ports of models that generate, in openvino-genai, which nobody here wrote: it opens the directory as it is."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import paritas
from paritas.errors import InputError, InputsNeeded

openvino = pytest.importorskip("openvino")
genai = pytest.importorskip("openvino_genai")

TASK = "text-generation-with-past"
TEXTS = ("the quick brown", "Hello world, 123")

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip


def _gpt2(vocabulary: int) -> Any:
    config = hf.GPT2Config(
        vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=1
    )
    return hf.GPT2LMHeadModel(config)


MODELS: dict[str, Any] = {
    "llama": lambda size: hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=size, **SIZES)),
    "gpt2": _gpt2,
    "qwen3": lambda size: hf.Qwen3ForCausalLM(hf.Qwen3Config(vocab_size=size, head_dim=8, **SIZES)),
    "gemma3": lambda size: hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(vocab_size=size, head_dim=8, sliding_window=6, sliding_window_pattern=2, **SIZES)
    ),
    "mixtral": lambda size: hf.MixtralForCausalLM(hf.MixtralConfig(vocab_size=size, num_local_experts=4, **SIZES)),
    "falcon with alibi": lambda size: hf.FalconForCausalLM(
        hf.FalconConfig(
            vocab_size=size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            alibi=True,
            bos_token_id=0,
            eos_token_id=1,
        )
    ),
    "phi": lambda size: hf.PhiForCausalLM(hf.PhiConfig(vocab_size=size, **SIZES)),
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Of bytes, trained on a few lines."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(["the quick brown fox jumps over the lazy dog, hello world "] * 20, trainer)
    return hf.PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def _checkpoint(name: str, tokenizer: Any, directory: Path) -> Any:
    torch.manual_seed(0)
    model = MODELS[name](len(tokenizer)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # larger ones, so that tokens are no accident of rounding
            parameter.mul_(3)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return model


@pytest.mark.parametrize("name", [*(pytest.param(n, marks=() if n == "llama" else pytest.mark.slow) for n in MODELS)])
def test_its_tokens_are_pytorchs(name: str, tokenizer: Any, tmp_path: Path) -> None:
    model = _checkpoint(name, tokenizer, tmp_path / "original")
    port = paritas.port(tmp_path / "original", task=TASK)
    report = port.verify(level="outputs")
    assert report.verdict == "agrees", str(report)
    assert not [str(note) for note in port.notes if "tokenizer" in str(note)]
    port.save(tmp_path / "port")
    pipeline = genai.LLMPipeline(
        str(tmp_path / "port"), "CPU", INFERENCE_PRECISION_HINT="f32", KV_CACHE_PRECISION="f32"
    )
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
    model = _checkpoint("llama", tokenizer, tmp_path / "original")
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
