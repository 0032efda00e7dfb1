# SPDX-License-Identifier: Apache-2.0
"""A character language model from scratch, in a loop of torch's: on PyTorch, and on MindSpore behind the same objects.

    python examples/training/characters.py

The text is generated: sums in words, "two and three is five.", of which the answer can be learnt.
"""

from __future__ import annotations

import copy
import math
import sys
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import paritas

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"]
TEXT = "".join(f"{NAMES[a]} and {NAMES[b]} is {NAMES[a + b]}. " for a in range(9) for b in range(9 - a))
CHARACTERS = sorted(set(TEXT))
LENGTH = 48


def batch(generator: torch.Generator, rows: int = 16) -> torch.Tensor:
    """Tokens [rows, LENGTH] from anywhere in the text, which goes on from its end at its beginning."""
    ids = torch.tensor([CHARACTERS.index(character) for character in TEXT * 2])
    places = torch.randint(0, len(TEXT), (rows,), generator=generator)
    return torch.stack([ids[place : place + LENGTH] for place in places.tolist()])


def train(model: Any, steps: int) -> float:
    """The perplexity of a character afterwards."""
    torch.manual_seed(0)
    draws = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        ids = batch(draws)
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    ids = batch(torch.Generator().manual_seed(1), rows=16)
    with torch.no_grad():
        return math.exp(model.eval()(input_ids=ids, labels=ids).loss)


def main(steps: int = 200) -> tuple[float, float]:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(CHARACTERS), n_positions=LENGTH, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0,
        loss_type="ForCausalLM",
    )  # fmt: skip
    model = GPT2LMHeadModel(config).train()
    found = train(copy.deepcopy(model), steps), train(paritas.trainable(model, engine="mindspore"), steps)
    print(f"perplexity of a character: PyTorch {found[0]:.4f}, MindSpore {found[1]:.4f}")
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
