# SPDX-License-Identifier: Apache-2.0
"""Tests run without the network: whatever asks for it fails at once. And what several of them share, made once."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a hundred processes would compile the package, each for itself
sys.dont_write_bytecode = False
os.environ["PARITAS_CACHE"] = ""  # no port of a user's is read, and none is left behind
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # set before torch and the engines are imported
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

gc.set_threshold(10_000)  # as the command has it


def pytest_collection_finish() -> None:
    """What was imported is not looked through for garbage again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What is said is heard: an example that a test before has run as a module may have silenced it."""
    logging.getLogger("paritas").setLevel(logging.NOTSET)


@pytest.hookimpl(trylast=True)  # when the fixtures of the file are gone
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Nor is what a file of tests has left in caches: each graph that MindSpore compiles begins with a collection."""
    if nextitem is not None and nextitem.path != item.path:
        gc.collect()
        gc.freeze()


Run = Callable[..., subprocess.CompletedProcess[str]]


def run_paritas(
    *args: object, env: dict[str, str] | None = None, python: bool = False
) -> subprocess.CompletedProcess[str]:
    """`paritas ARGS` in a process of its own; python=True: `python -c ARGS`."""
    command = [sys.executable, *(["-c"] if python else ["-m", "paritas"]), *map(str, args)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="session")
def paritas() -> Run:
    return run_paritas


@pytest.fixture(scope="session", autouse=True)
def few_suspects(request: pytest.FixtureRequest) -> None:
    """Every verification looks for suspects as long as its clock says: a fifth of that on every day."""
    if request.config.getoption("markexpr") == "not slow":
        from paritas.verify.inputs import suspects

        suspects.SECONDS = 0.2


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 32 random weights wide, as save_pretrained leaves it."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
    )
    directory = tmp_path_factory.mktemp("checkpoint") / "tiny-bert"
    transformers.BertModel(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def openvino_run(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """`paritas port` to OpenVINO as a user runs it: the directory and what it printed."""
    return _ported_once(tmp_path_factory, checkpoint, "openvino", "--json")


@pytest.fixture(scope="session")
def mindspore_run(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    return _ported_once(tmp_path_factory, checkpoint, "mindspore", "--level", "outputs")


def _ported_once(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, engine: str, *options: str
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """By the first of pytest's workers that asks, for all of them."""
    shared = tmp_path_factory.getbasetemp()
    if workers:
        shared = shared.parent
    directory, said = shared / "ports" / engine, shared / f"{engine}.json"
    with filelock.FileLock(f"{said}.lock"):
        if not said.exists():
            done = run_paritas("port", checkpoint, "-e", engine, "--out", directory, *options)
            said.write_text(json.dumps([done.args, done.returncode, done.stdout, done.stderr]))
    return directory, subprocess.CompletedProcess(*json.loads(said.read_text()))


@pytest.fixture(scope="session")
def openvino_port(openvino_run: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    directory, done = openvino_run
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="session")
def mindspore_port(mindspore_run: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    directory, done = mindspore_run
    assert done.returncode == 0, done.stderr
    return directory
