# SPDX-License-Identifier: Apache-2.0
"""open_clip's own training with a model that MindSpore computes: its losses, checkpoints and flags."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from paritas import open_clip
from paritas.errors import InputError
from paritas.open_clip import checkpoints
from paritas.open_clip.training import checked, command_for, train

WORDS = ("red", "green", "blue", "white", "black", "grey", "dark", "light")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 24 pictures with captions, as open_clip reads it."""
    place = tmp_path_factory.mktemp("pairs")
    generator = np.random.default_rng(0)
    lines = ["filepath\ttitle"]
    for number in range(24):
        colour = generator.integers(0, 255, 3)
        pixels = np.clip(colour + generator.integers(-20, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
        lines.append(f"{place / f'{number}.png'}\ta {WORDS[number % 8]} picture with {number}")
    (place / "pairs.tsv").write_text("\n".join(lines) + "\n")
    return place / "pairs.tsv"


def _flags(pairs: Path, logs: Path, name: str, *more: str) -> list[str]:
    return [
        *("--model", "tiny", "--train-data", str(pairs), "--dataset-type", "csv", "--batch-size", "6"),
        *("--workers", "0", "--logs", str(logs), "--name", name, "--epochs", "2", "--warmup", "2", "--lr", "1e-3"),
        *("--log-every-n-steps", "1", *more),
    ]  # fmt: skip


def _losses(logs: Path, name: str) -> list[list[float]]:
    """Of every step, all of its losses."""
    lines = [line for line in (logs / name / "out.log").read_text().splitlines() if "Train Epoch" in line]
    return [[float(one) for one in re.findall(r"oss: (\S+) \(", line)] for line in lines]


def _same(logs: Path, first: str, second: str) -> None:
    want, got = np.array(_losses(logs, first)), np.array(_losses(logs, second))
    assert want.shape == got.shape and want.size
    assert float((np.abs(want - got) / np.abs(want)).max()) < 1e-3
    assert len({tuple(row) for row in want.tolist()}) == len(want), "losses change from step to step"


def _evaluated(logs: Path, name: str) -> list[dict[str, float]]:
    """Of every epoch, what was said of the pairs that are not trained on."""
    return [json.loads(line) for line in (logs / name / "checkpoints" / "results.jsonl").read_text().splitlines()]


KINDS: dict[str, tuple[str, ...]] = {
    "contrastive": (),
    "local": ("--local-loss",),
    "several batches a step": ("--accum-freq", "2", "--grad-clip-norm", "1.0"),
    "sigmoid": ("--siglip", "--model", "sigmoid"),
    "captions": ("--model", "coca_several"),
    "a part of the tower": ("--lock-image", "--lock-image-unlocked-groups", "1"),
    "checkpointing": ("--grad-checkpointing", "--lr-scheduler", "const"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_pytorch(kind: str, pairs: Path, folder: Path, tmp_path: Path) -> None:
    more = list(KINDS[kind])
    if kind == "captions":  # of a new CoCa, open_clip leaves a matrix as the memory was
        torch.manual_seed(0)
        model = open_clip.create_model("coca_several")
        with torch.no_grad():
            model.text_decoder.text_projection.normal_(std=0.1)
        checkpoints.write(model.state_dict(), tmp_path / "coca.safetensors")
        more += ["--pretrained", str(tmp_path / "coca.safetensors")]
    for engine in ("torch", "mindspore"):
        train(_flags(pairs, tmp_path, engine, "--val-data", str(pairs), *more), engine)
    _same(tmp_path, "torch", "mindspore")
    want, got = _evaluated(tmp_path, "torch"), _evaluated(tmp_path, "mindspore")
    assert len(want) == 2 and [sorted(row) for row in want] == [sorted(row) for row in got]
    for one, other in zip(want, got, strict=True):
        for measure in [name for name in one if name.endswith("loss")]:
            assert abs(one[measure] - other[measure]) < 1e-3 * one[measure], measure


@pytest.mark.slow
def test_mixed_precision_is_as_exact_as_pytorchs(pairs: Path, folder: Path, tmp_path: Path) -> None:
    for name, engine, precision in (
        ("fp32", "torch", "fp32"), ("torch", "torch", "amp_bf16"), ("mindspore", "mindspore", "amp_bf16"),
    ):  # fmt: skip
        train(_flags(pairs, tmp_path, name, "--precision", precision), engine)
    truth, theirs, found = (np.array(_losses(tmp_path, name)) for name in ("fp32", "torch", "mindspore"))
    assert found.shape == truth.shape and truth.size
    assert float(np.abs(found - truth).max()) <= 2 * float(np.abs(theirs - truth).max()) + 1e-4
    assert float(np.abs(found - truth).max()) > 1e-5, "what was computed in float32 throughout would be nearer"


@pytest.mark.slow
def test_a_model_is_taught_by_another(pairs: Path, folder: Path, tmp_path: Path) -> None:
    taught = ("--distill-model", "tiny", "--distill-pretrained", str(folder / "ViT-B-32.safetensors"))
    for engine in ("torch", "mindspore"):
        train(_flags(pairs, tmp_path, engine, *taught), engine)
    _same(tmp_path, "torch", "mindspore")


@pytest.mark.slow
def test_what_was_trained_here_goes_on_in_open_clip_and_back(pairs: Path, folder: Path, tmp_path: Path) -> None:
    train(_flags(pairs, tmp_path, "whole", "--epochs", "3"), "torch")
    train(_flags(pairs, tmp_path, "begun", "--epochs", "1"), "mindspore")
    state = torch.load(tmp_path / "begun" / "checkpoints" / "epoch_1.pt", weights_only=True)
    assert set(state) == {"epoch", "name", "state_dict", "optimizer"} and state["epoch"] == 1
    for engine in ("torch", "mindspore"):
        path = str(tmp_path / "begun" / "checkpoints" / "epoch_1.pt")
        train(_flags(pairs, tmp_path, f"on {engine}", "--epochs", "3", "--resume", path), engine)
    _same(tmp_path, "on torch", "on mindspore")
    assert len(_losses(tmp_path, "on torch")) == 8


@pytest.mark.slow
def test_two_processes_gather_their_features(pairs: Path, folder: Path, tmp_path: Path) -> None:
    for engine in ("torch", "mindspore"):
        given = _flags(pairs, tmp_path, engine, "--local-loss", "--gather-with-grad")
        flags = [str(folder / "tiny.json") if one == "tiny" else one for one in given]
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "paritas"]
        done = subprocess.run(
            [sys.executable, *command, "train", "clip", "--engine", engine, *flags],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    _same(tmp_path, "torch", "mindspore")


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "a flag": (("--epoks", "3"), "unrecognized arguments: --epoks"),
    "a number": (("--epochs", "x"), "argument --epochs: invalid int value: 'x'"),
    "horovod": (("--horovod",), "--horovod is not taken: processes are torch's"),
    "TorchScript": (("--torchscript",), "--torchscript is not taken: an engine computes a compiled graph anyway"),
    "a device": (("--device", "cuda"), "--device cuda is not taken"),
    "no file": (("--train-data", "nowhere.tsv"), "--train-data: there is no file nowhere.tsv"),
    "a model": (("--model", "tinny"), "no model 'tinny'. Did you mean tiny"),
    "no configuration": (("--model", "nowhere.json"), "--model: there is no file nowhere.json"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_flags_that_make_no_sense_are_refused(what: str, pairs: Path, folder: Path, tmp_path: Path) -> None:
    more, text = REFUSED[what]
    with pytest.raises(InputError, match=re.escape(text)):
        checked(command_for(_flags(pairs, tmp_path, "a", *more)))


def test_nothing_to_learn_from_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="nothing to learn from"):
        checked(command_for(["--model", "tiny"]))


@pytest.mark.slow
def test_a_run_of_that_name_is_not_written_over(pairs: Path, folder: Path, tmp_path: Path) -> None:
    train(_flags(pairs, tmp_path, "a", "--epochs", "1"), "torch")
    with pytest.raises(InputError, match="is there already: choose another --name"):
        train(_flags(pairs, tmp_path, "a", "--epochs", "1"), "torch")


def test_an_engine_without_gradients_is_refused(pairs: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="openvino computes no gradients"):
        train(_flags(pairs, tmp_path, "a"), "openvino")


def test_loggers_are_left_as_they_were(pairs: Path, folder: Path) -> None:
    import logging

    before: Any = logging.getLogger().handlers[:], logging.getLogger().level
    with pytest.raises(InputError):
        train(["--model", "tiny", "--train-data", "nowhere.tsv", "--dataset-type", "csv"], "torch")
    assert before == (logging.getLogger().handlers, logging.getLogger().level)
