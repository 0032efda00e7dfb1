# SPDX-License-Identifier: Apache-2.0
"""Speech recognition with transformers' Seq2SeqTrainer, on PyTorch and on MindSpore: one import differs.

    pip install 'paritas[train]'
    python examples/training/speech.py

A small Whisper listens to sounds that are generated: each vowel is two formants over noise, some last longer, and the
speaker's pitch is another each time.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import torch
import transformers
from transformers import Seq2SeqTrainingArguments, WhisperConfig, WhisperForConditionalGeneration

import paritas.transformers

#: Vowel -> its first two formants, in Hz.
VOWELS = {"a": (730, 1090), "e": (530, 1840), "i": (270, 2290), "o": (570, 840), "u": (300, 870)}
RATE, FRAME, BINS, FRAMES, SAID = 8000, 160, 40, 80, 4

PAD, START, END = 0, 1, 2
LETTERS = ["<pad>", "<start>", "<end>", *VOWELS]


def spoken(letters: str, draw: torch.Generator) -> torch.Tensor:
    """A recording [FRAMES * FRAME] of vowels one after another."""
    pitch = 100 + 100 * torch.rand(1, generator=draw)
    parts = []
    for letter in letters:
        time = torch.arange(FRAME * int(torch.randint(12, 19, (1,), generator=draw))) / RATE
        sound = sum(torch.sin(2 * torch.pi * hertz * time) for hertz in VOWELS[letter])
        parts.append(sound * (1 + 0.5 * torch.sin(2 * torch.pi * pitch * time)) * torch.hann_window(len(time)))
    whole = torch.cat(parts)
    whole = torch.nn.functional.pad(whole, (0, FRAMES * FRAME - len(whole)))
    return whole + 0.05 * torch.randn(len(whole), generator=draw)


def features(recording: torch.Tensor) -> torch.Tensor:
    """The logarithm of its spectrum, [BINS, FRAMES]."""
    window = torch.hann_window(2 * FRAME)
    spectrum = torch.stft(recording, 2 * FRAME, FRAME, window=window, return_complex=True).abs()[: 2 * BINS, :FRAMES]
    return torch.log(spectrum.reshape(BINS, 2, FRAMES).mean(1) + 1e-2) / 2


class Recordings(torch.utils.data.Dataset[Any]):
    """{"input_features": float32 [BINS, FRAMES], "labels": int64 [SAID + 1]}."""

    def __init__(self, count: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.rows = []
        for _ in range(count):
            said = "".join(list(VOWELS)[i] for i in torch.randint(0, len(VOWELS), (SAID,), generator=draw).tolist())
            labels = torch.tensor([*map(LETTERS.index, said), END])
            self.rows.append({"input_features": features(spoken(said, draw)), "labels": labels})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def errors(predicted: Any) -> dict[str, float]:
    """The share of letters that are wrong, place by place."""
    written = predicted.predictions[:, 1 : SAID + 1]
    return {"error_rate": 1 - float((written[:, :SAID] == predicted.label_ids[:, : written.shape[1]]).mean())}


def run(trainer_class: Any, steps: int) -> float:
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=len(LETTERS), num_mel_bins=BINS, d_model=48, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=96, decoder_ffn_dim=96,
        max_source_positions=FRAMES // 2, max_target_positions=SAID + 4, pad_token_id=PAD, bos_token_id=START,
        eos_token_id=END, decoder_start_token_id=START, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=32, learning_rate=3e-3, warmup_steps=20,
            save_strategy="no", logging_steps=50, report_to=[], use_cpu=True, seed=0, dataloader_drop_last=True,
            per_device_eval_batch_size=64, predict_with_generate=True, generation_max_length=SAID + 2,
        )  # fmt: skip
        trainer = trainer_class(
            model, arguments, train_dataset=Recordings(1024, 0), eval_dataset=Recordings(128, 1), compute_metrics=errors
        )
        trainer.train()
        return float(trainer.evaluate()["eval_error_rate"])


def main(steps: int = 300) -> tuple[float, float]:
    found = run(transformers.Seq2SeqTrainer, steps), run(paritas.transformers.Seq2SeqTrainer, steps)
    print(f"letters of held-out recordings that are wrong: PyTorch {found[0]:.3f}, MindSpore {found[1]:.3f}")
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
