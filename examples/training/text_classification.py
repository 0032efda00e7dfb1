# SPDX-License-Identifier: Apache-2.0
"""Text classification with transformers' Trainer, on PyTorch and on MindSpore: one import differs.

    pip install 'paritas[train]'
    python examples/training/text_classification.py

The sentences are generated: one word says whether a review is good, wherever it stands.
"""

from __future__ import annotations

import random
import sys
import tempfile
from typing import Any

import torch
import transformers
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

import paritas

NOUNS = ("film", "book", "play", "plot", "cast", "end")
GOOD, BAD = ("good", "great", "fine"), ("bad", "dull", "poor")
WORDS = ["the", "a", "and", "it", "was", "really", *NOUNS, *GOOD, *BAD]


class Reviews(torch.utils.data.Dataset[Any]):
    """{"input_ids": int64 [5], "labels": 0 or 1}."""

    def __init__(self, count: int, seed: int) -> None:
        draw = random.Random(seed)
        self.rows = [self._row(draw) for _ in range(count)]

    @staticmethod
    def _row(draw: random.Random) -> dict[str, Any]:
        good, noun = draw.random() < 0.5, draw.choice(NOUNS)
        said = draw.choice(GOOD if good else BAD)
        words = ["a", said, noun, "and", "it"] if draw.random() < 0.5 else ["the", noun, "was", "really", said]
        return {"input_ids": torch.tensor([WORDS.index(word) for word in words]), "labels": int(good)}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def accuracy(predicted: Any) -> dict[str, float]:
    return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


def run(trainer_class: Any, steps: int) -> float:
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=32, learning_rate=3e-3, warmup_steps=10,
            save_strategy="no", logging_steps=50, report_to=[], use_cpu=True, seed=0, dataloader_drop_last=True,
            per_device_eval_batch_size=64,
        )  # fmt: skip
        trainer = trainer_class(
            model, arguments, train_dataset=Reviews(1024, 0), eval_dataset=Reviews(256, 1), compute_metrics=accuracy
        )
        trainer.train()
        return float(trainer.evaluate()["eval_accuracy"])


def main(steps: int = 60) -> tuple[float, float]:
    found = run(transformers.Trainer, steps), run(paritas.Trainer, steps)
    print(f"accuracy of held-out reviews: PyTorch {found[0]:.3f}, MindSpore {found[1]:.3f}")
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
