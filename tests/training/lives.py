# SPDX-License-Identifier: Apache-2.0
"""A training that is killed again and again, at moments that nobody chose, and goes on from what it has saved.

    python tests/training/lives.py DIRECTORY KILLS SEED

writes DIRECTORY/lives.json: of each life, what was saved when it began, and the losses that it came to. Lives are
forked from a process in which nothing was computed, so that a kill costs seconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers as T

SAVED_EVERY, STEPS = 4, 4000


class Rows(torch.utils.data.Dataset[Any]):
    def __init__(self) -> None:
        self.ids = torch.randint(2, 60, (64, 6), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.ids[index], "labels": int(self.ids[index][0] > 30)}


class Writes(T.TrainerCallback):
    """Losses into a file, line by line, as they are known; ends the training at a step."""

    def __init__(self, log: Path, until: int) -> None:
        self.log, self.until = log, until

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            with open(self.log, "a") as file:
                file.write(f"{state.global_step} {logs['loss']!r}\n")
        control.should_training_stop = state.global_step >= self.until


def train(directory: Path, log: Path, until: int = STEPS, resume: bool = True) -> None:
    from paritas.transformers import Trainer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = T.BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=8, num_labels=2,
    )  # fmt: skip
    args = T.TrainingArguments(
        str(directory), max_steps=STEPS, per_device_train_batch_size=8, learning_rate=1e-3, save_steps=SAVED_EVERY,
        save_total_limit=2, logging_steps=1, report_to=[], disable_tqdm=True, use_cpu=True, seed=0,
    )  # fmt: skip
    trainer = Trainer(
        T.BertForSequenceClassification(config), args, train_dataset=Rows(), callbacks=[Writes(log, until)]
    )
    trainer.train(resume_from_checkpoint=True if resume and saved(directory) else None)


def saved(directory: Path) -> int:
    """The step of the last checkpoint that is whole, 0 for none."""
    from paritas.transformers.checkpoints import last_whole

    found = last_whole(directory) if directory.is_dir() else None
    return int(found.name.rpartition("-")[2]) if found else 0


def losses(log: Path) -> list[tuple[int, float]]:
    """Those that were written to their end."""
    if not log.exists():
        return []
    lines = log.read_text().rpartition("\n")[0].splitlines()
    return [(int(step), float(loss)) for step, loss in map(str.split, lines)]


def _forked(work: Any) -> int:
    process = os.fork()
    if not process:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return process


def main(root: Path, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    lives: list[dict[str, Any]] = []
    directory = root / "run"
    for life in range(kills):
        log = root / f"{life}.log"
        began = saved(directory)
        process = _forked(lambda log=log: train(directory, log))
        # One in five is killed while it begins; the others once they have come to a loss.
        if life % 5 == 4:
            time.sleep(draw.uniform(0.0, 4.0))
        else:
            for _ in range(3000):
                if losses(log) or os.waitpid(process, os.WNOHANG)[0]:
                    break
                time.sleep(0.02)
            time.sleep(draw.uniform(0.0, 1.6))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        lives.append({"began": began, "losses": losses(log), "saved": saved(directory)})
    last = max((step for life in lives for step, _ in life["losses"]), default=1)
    for name, resume in (("end", True), ("whole", False)):  # to the end, and once without being killed
        target = directory if resume else root / "uninterrupted"
        process = _forked(
            lambda name=name, target=target, resume=resume: train(target, root / f"{name}.log", last + 4, resume)
        )
        assert os.waitpid(process, 0)[1] == 0, name
    lives.append({"began": lives[-1]["saved"], "losses": losses(root / "end.log"), "saved": saved(directory)})
    (root / "lives.json").write_text(json.dumps({"lives": lives, "whole": losses(root / "whole.log")}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
