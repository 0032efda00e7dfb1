# SPDX-License-Identifier: Apache-2.0
"""Whisper with a few thousand random parameters: a checkpoint with tokenizer and processor, hearing 2 s at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from tokenizers import pre_tokenizers

RATE, SECONDS = 16000, 2

#: As the multilingual tokenizer of Whisper has them, in this order after its bytes.
SPECIAL = [
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
    "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
]  # fmt: skip


def save(directory: Path, scale: float = 3.0) -> Any:
    """The model, saved with all that a checkpoint of the hub has."""
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: i for i, character in enumerate(characters)}
    tokenizer = hf.WhisperTokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    extractor = hf.WhisperFeatureExtractor(feature_size=80, chunk_length=SECONDS)
    hf.WhisperProcessor(extractor, tokenizer).save_pretrained(directory)
    torch.manual_seed(0)
    end = ids["<|endoftext|>"]
    config = hf.WhisperConfig(
        vocab_size=len(tokenizer) + 51, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=80,
        max_source_positions=SECONDS * 50, max_target_positions=64, pad_token_id=end, bos_token_id=end,
        eos_token_id=end, decoder_start_token_id=ids["<|startoftranscript|>"], suppress_tokens=None,
        begin_suppress_tokens=None, tie_word_embeddings=False,
    )  # fmt: skip
    model = hf.WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    generation = model.generation_config
    generation._from_model_config = False  # else what is Whisper's own of it would not be read again
    generation.is_multilingual = True
    generation.lang_to_id = {"<|en|>": ids["<|en|>"], "<|de|>": ids["<|de|>"]}
    generation.task_to_id = {"translate": ids["<|translate|>"], "transcribe": ids["<|transcribe|>"]}
    generation.no_timestamps_token_id = ids["<|notimestamps|>"]
    generation.prev_sot_token_id = ids["<|startofprev|>"]
    generation.max_initial_timestamp_index = 50
    generation.begin_suppress_tokens = [vocabulary["a"], end]
    # What is left are signs of one byte each: a text then says which tokens it is of.
    generation.suppress_tokens = [*list(ids.values())[1:], *(i for c, i in vocabulary.items() if not "!" <= c <= "~")]
    generation.max_length = 60
    model.save_pretrained(directory)
    return model


def sound(seed: int = 0) -> np.ndarray:
    """Two seconds of a few tones and noise, float32."""
    generator = np.random.default_rng(seed)
    time = np.arange(RATE * SECONDS) / RATE
    tones = sum(np.sin(2 * np.pi * f * time + p) for f, p in generator.uniform(100, 2000, (4, 2)))
    return (0.1 * tones + 0.02 * generator.standard_normal(len(time))).astype(np.float32)
