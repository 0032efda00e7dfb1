# SPDX-License-Identifier: Apache-2.0
"""SpeechT5 with a few thousand random parameters, in memory, and as checkpoints with tokenizer and processor."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
import transformers as hf

SIZES: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_mel_bins": 8,
    "speaker_embedding_dim": 16, "speech_decoder_prenet_units": 24, "speech_decoder_postnet_units": 24,
    "speech_decoder_postnet_layers": 3, "conv_dim": (16, 16, 16), "conv_stride": (5, 4, 4), "conv_kernel": (10, 8, 8),
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "max_speech_positions": 200,
    "max_text_positions": 60, "encoder_max_relative_position": 20, "pad_token_id": 1, "bos_token_id": 0,
    "eos_token_id": 2, "decoder_start_token_id": 2, "initializer_range": 0.3,
}  # fmt: skip

#: What the tokenizer learns its characters from: no digits, as SpeechT5's has none.
LINES = ["the quick brown fox jumps over the lazy dog", "Don't count the days, make the days count."]


def speecht5(cls: Any, **changed: Any) -> Any:
    """One whose positions of speech are 5 ms each."""
    torch.manual_seed(0)
    return cls(hf.SpeechT5Config(**{**SIZES, **changed})).eval()


def hifigan() -> Any:
    """A vocoder of 16 samples for a frame of the spectrogram."""
    torch.manual_seed(3)
    return hf.SpeechT5HifiGan(
        hf.SpeechT5HifiGanConfig(
            model_in_dim=8, upsample_initial_channel=16, upsample_rates=[4, 4], upsample_kernel_sizes=[8, 8],
            resblock_kernel_sizes=[3, 5], resblock_dilation_sizes=[[1, 3], [1, 3]], initializer_range=0.2,
        )
    ).eval()  # fmt: skip


def save_all(directory: Path) -> dict[str, Path]:
    """Checkpoints in `asr`, `vc`, `tts` and `vocoder`, as the hub's are: by name.

    Those that speak never find the end, so that speech has its greatest length: 20 frames for each position of the
    input, 20 ms.
    """
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=written, model_type="char", vocab_size=40,
        hard_vocab_limit=False, bos_id=0, pad_id=1, eos_id=2, unk_id=3, minloglevel=2,
    )  # fmt: skip
    (directory / "spm_char.model").write_bytes(written.getvalue())
    tokenizer = hf.SpeechT5Tokenizer(str(directory / "spm_char.model"))
    processor = hf.SpeechT5Processor(hf.SpeechT5FeatureExtractor(num_mel_bins=8), tokenizer)
    found = {"vocoder": directory / "vocoder"}
    hifigan().save_pretrained(found["vocoder"])
    for name, cls in (
        ("asr", hf.SpeechT5ForSpeechToText),
        ("vc", hf.SpeechT5ForSpeechToSpeech),
        ("tts", hf.SpeechT5ForTextToSpeech),
    ):
        found[name] = directory / name
        positions = 4000 if name == "asr" else 400  # 20 s to hear, 2 s to convert
        model = speecht5(
            cls, vocab_size=len(tokenizer), encoder_layers=1, decoder_layers=1, max_speech_positions=positions
        )
        if name != "asr":
            torch.nn.init.constant_(model.speech_decoder_postnet.prob_out.bias, -50.0)
        model.save_pretrained(found[name])
        processor.save_pretrained(found[name])
    return found
