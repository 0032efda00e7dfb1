# SPDX-License-Identifier: Apache-2.0
"""Translation with transformers' Seq2SeqTrainer, on PyTorch and on MindSpore: one import differs.

    pip install 'paritas[train]'
    python examples/training/translation.py

The languages are generated: adjectives, which stand before their noun in one, stand behind it in the other and agree
with it, as in French. Sentences that are asked for were held out.
"""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
from typing import Any

import torch
import transformers
from transformers import Seq2SeqTrainingArguments, T5Config, T5ForConditionalGeneration

import paritas.transformers

NOUNS = {"cat": ("chat", 0), "dog": ("chien", 0), "door": ("porte", 1), "table": ("table", 1), "book": ("livre", 0)}
ADJECTIVES = {"green": ("vert", "verte"), "small": ("petit", "petite"), "black": ("noir", "noire")}
VERBS = {"sees": "voit", "wants": "veut", "has": "a"}
ARTICLES = {"the": ("le", "la"), "a": ("un", "une")}

PAD, END = 0, 1


def _phrase(article: str, adjective: str, noun: str) -> list[str]:
    word, gender = NOUNS[noun]
    return [ARTICLES[article][gender], word, ADJECTIVES[adjective][gender]]


def pairs() -> list[tuple[list[str], list[str]]]:
    """Every sentence of two nouns with an adjective each, and its translation, in an order of its own."""
    found = []
    for article, adjective, noun, verb, other in itertools.product(ARTICLES, ADJECTIVES, NOUNS, VERBS, NOUNS):
        for another in ADJECTIVES:
            said = [article, adjective, noun, verb, "a", another, other]
            found.append((said, [*_phrase(article, adjective, noun), VERBS[verb], *_phrase("a", another, other)]))
    random.Random(0).shuffle(found)
    return found


PAIRS = pairs()
WORDS = ["<pad>", "</s>", *sorted({word for pair in PAIRS for side in pair for word in side})]


class Sentences(torch.utils.data.Dataset[Any]):
    """{"input_ids": int64 [8], "labels": int64 [8]}."""

    def __init__(self, rows: list[tuple[list[str], list[str]]]) -> None:
        self.rows = [
            {
                name: torch.tensor([*map(WORDS.index, words), END])
                for name, words in zip(("input_ids", "labels"), row, strict=True)
            }
            for row in rows
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def right(predicted: Any) -> dict[str, float]:
    """The share of sentences that are translated without a mistake."""
    written = predicted.predictions[:, 1 : predicted.label_ids.shape[1] + 1]
    length = min(written.shape[1], predicted.label_ids.shape[1])
    return {"right": float((written[:, :length] == predicted.label_ids[:, :length]).all(1).mean())}


def run(trainer_class: Any, steps: int) -> float:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(WORDS), d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4, decoder_start_token_id=PAD,
        relative_attention_num_buckets=8, dropout_rate=0.0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=32, learning_rate=1e-2, warmup_steps=10,
            save_strategy="no", logging_steps=50, report_to=[], use_cpu=True, seed=0, dataloader_drop_last=True,
            per_device_eval_batch_size=64, predict_with_generate=True, generation_max_length=9,
        )  # fmt: skip
        trainer = trainer_class(
            model, arguments, train_dataset=Sentences(PAIRS[:-128]), eval_dataset=Sentences(PAIRS[-128:]),
            compute_metrics=right,
        )  # fmt: skip
        trainer.train()
        return float(trainer.evaluate()["eval_right"])


def main(steps: int = 300) -> tuple[float, float]:
    found = run(transformers.Seq2SeqTrainer, steps), run(paritas.transformers.Seq2SeqTrainer, steps)
    print(f"held-out sentences translated right: PyTorch {found[0]:.3f}, MindSpore {found[1]:.3f}")
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
