# SPDX-License-Identifier: Apache-2.0
"""Small causal language models and a tokenizer of bytes for them, as checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip

STATES = {"hidden_size": 32, "num_hidden_layers": 2, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


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
    "mamba": lambda size: hf.MambaForCausalLM(hf.MambaConfig(vocab_size=size, state_size=8, **STATES)),
    "mamba2": lambda size: hf.Mamba2ForCausalLM(
        hf.Mamba2Config(vocab_size=size, state_size=8, head_dim=16, num_heads=4, n_groups=2, chunk_size=8, **STATES)
    ),
    "jamba": lambda size: hf.JambaForCausalLM(
        hf.JambaConfig(
            vocab_size=size,
            attn_layer_period=2,
            attn_layer_offset=1,
            num_experts=1,
            mamba_d_state=8,
            mamba_dt_rank=4,
            use_mamba_kernels=False,
            **SIZES,
        )
    ),
    "lfm2": lambda size: hf.Lfm2ForCausalLM(
        hf.Lfm2Config(vocab_size=size, layer_types=["conv", "full_attention"], block_multiple_of=8, **SIZES)
    ),
    "qwen3-next": lambda size: hf.Qwen3NextForCausalLM(
        hf.Qwen3NextConfig(
            vocab_size=size,
            head_dim=8,
            layer_types=["linear_attention", "full_attention"],
            linear_key_head_dim=8,
            linear_value_head_dim=8,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            num_experts=2,
            num_experts_per_tok=1,
            moe_intermediate_size=24,
            shared_expert_intermediate_size=24,
            **SIZES,
        )
    ),
    "phi": lambda size: hf.PhiForCausalLM(hf.PhiConfig(vocab_size=size, **SIZES)),
}


def tokenizer_of_bytes() -> Any:
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


def saved(name: str, tokenizer: Any, directory: Path) -> Any:
    """The model, after it was written to `directory` with its tokenizer."""
    torch.manual_seed(0)
    model = MODELS[name](len(tokenizer)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # so that tokens are no accident of rounding
            parameter.mul_(3)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return model
