# SPDX-License-Identifier: Apache-2.0
"""A language model in a loop of accelerate's: one recipe for one process, for several, and for ZeRO.

    python examples/training/several.py
    paritas train examples/training/several.py --processes 2 --out tuned
    paritas train examples/training/several.py --engine torch --zero 2 --out tuned

The first is one process on MindSpore, the second two, with half of each batch and MindSpore's own collectives, the
third two of PyTorch's with DeepSpeed. All go the same way: what is printed is the same to four digits and more.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from transformers import GPT2Config, GPT2LMHeadModel

import paritas

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"]
TEXT = "".join(f"{NAMES[a]} and {NAMES[b]} is {NAMES[a + b]}. " for a in range(9) for b in range(9 - a))
CHARACTERS = sorted(set(TEXT))


class Sums(torch.utils.data.Dataset[Any]):
    """int64 [length] from each place of the text, which goes on from its end at its beginning."""

    def __init__(self, count: int, length: int) -> None:
        self.ids = torch.tensor([CHARACTERS.index(character) for character in TEXT * 2])
        self.places = torch.randint(0, len(TEXT), (count,), generator=torch.Generator().manual_seed(0)).tolist()
        self.length = length

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> torch.Tensor:
        place = self.places[index]
        return self.ids[place : place + self.length]


def main(arguments: Sequence[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16, help="of all processes together")
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--losses", default="", help="a file for them, as JSON")
    given = parser.parse_args(arguments)

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(CHARACTERS), n_positions=given.length, n_embd=given.width, n_layer=given.layers, n_head=4,
        bos_token_id=0, eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
        loss_type="ForCausalLM",
    )  # fmt: skip
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(split_batches=True))
    model: Any = paritas.trainable(GPT2LMHeadModel(config).train())
    optimizer: Any = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule: Any = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10))
    loader: Any = torch.utils.data.DataLoader(Sums(given.steps * given.batch, given.length), batch_size=given.batch)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)

    losses = []
    for ids in loader:
        loss = model(input_ids=ids, labels=ids).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(accelerator.gather(loss.detach()).mean()))
    if accelerator.is_main_process:
        print(f"loss {losses[0]:.4f} at first, {losses[-1]:.4f} after {len(losses)} steps")
        if given.losses:
            Path(given.losses).write_text(json.dumps(losses))
    return losses


if __name__ == "__main__":
    main()
