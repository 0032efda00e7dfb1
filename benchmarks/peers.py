# SPDX-License-Identifier: Apache-2.0
"""The same model in Paritas, openvino-genai and optimum-intel: 64 tokens after 128, a Llama of 271 million, batch 1.

    PARITAS_PEER_PYTHON=~/peer/bin/python python benchmarks/peers.py
    python benchmarks/peers.py --formats int8 --rounds 3
    python benchmarks/peers.py --quick          # a tiny model, one turn, nothing written: whether all of it works

For each format Paritas makes a directory, and optimum-intel its own (CONTRIBUTING.md says how its environment is made;
without one there are no such rows). Every contender is a process of its own; those of one format take turns: a warm-up
each, then `--rounds` generations, medians. All are given the same properties, those of the port's `ov_config.json`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peer import ANSWERS, PEERS
from results import write
from turns import ask, compared, table

PEER_PYTHON = os.environ.get("PARITAS_PEER_PYTHON", "")

#: format -> what Paritas' command and optimum-intel's are told.
FORMATS = {
    "fp32": ([], "fp32"),
    "bf16": (["--dtype", "bf16"], "fp32"),  # which it is not told of a model that computes in another precision
    "int8": (["--weights", "int8"], "int8"),
    "int4": (["--weights", "int4"], "int4"),
}
OWN = "optimum-intel, own export"


def main() -> int:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    found.add_argument("--contenders", nargs="+", choices=ANSWERS, default=list(ANSWERS))
    found.add_argument("--rounds", type=int, default=5, help="turns of each (5)")
    found.add_argument("--quick", action="store_true", help="a tiny model, one turn, nothing written")
    options = found.parse_args()
    prompt, new, rounds = (16, 8, 1) if options.quick else (128, 64, options.rounds)
    names = [name for name in options.contenders if PEER_PYTHON or ANSWERS[name] not in PEERS]
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "checkpoint", options.quick)
        for form in options.formats:
            made = directories(Path(folder), form, names)
            figures = take_turns(made, (str(prompt), str(new)), rounds)
            rows = with_memory(compared(figures), figures)
            print(table(f"{form}: Llama, prompt {prompt}, {new} new tokens, batch 1", rows, new))
            for name, row in rows.items():
                print(f"{name:28}loaded in {row['load']:.1f} s, {row['peak']:.0f} MB at most, {row['now']:.0f} MB now")
            results[form] = rows
            for directory in {directory for directory, _ in made.values()}:
                shutil.rmtree(directory)
    if not options.quick:
        write("peers", {"prompt": prompt, "new": new, "formats": results})
    return 0


def make(directory: Path, quick: bool) -> None:
    """A Llama of random parameters, and a tokenizer of bytes, without which openvino-genai opens no directory."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    sizes = (128, 2, 4, 256) if quick else (1024, 16, 16, 2816)
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    config = LlamaConfig(**dict(zip(names, sizes, strict=True)), vocab_size=32_000, eos_token_id=None, pad_token_id=0)
    LlamaForCausalLM(config).save_pretrained(directory)
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={sign: i for i, sign in enumerate(["<pad>", "<s>", "</s>", *signs])}, merges=[]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    told = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=raw, **told).save_pretrained(directory)


def directories(folder: Path, form: str, names: Sequence[str]) -> dict[str, tuple[Path, float]]:
    """contender -> its directory, and how long it took to make."""
    ours, theirs = folder / f"port-{form}", folder / f"export-{form}"
    given, weights = FORMATS[form]
    port = [sys.executable, "-m", "paritas", "port", folder / "checkpoint", "--out", ours, "--no-verify", "--quiet"]
    seconds = _timed([*port, *given])
    exported = 0.0
    if OWN in names:
        task = ["--task", "text-generation-with-past", "--weight-format", weights]
        export = [Path(PEER_PYTHON).with_name("optimum-cli"), "export", "openvino", "--model", folder / "checkpoint"]
        exported = _timed([*export, *task, theirs], PYTHONPATH="", HF_HUB_OFFLINE="1")
        shutil.copyfile(ours / "ov_config.json", theirs / "ov_config.json")
    return {name: (theirs, exported) if name == OWN else (ours, seconds) for name in names}


def _timed(command: Sequence[object], **environment: str) -> float:
    start = time.perf_counter()
    subprocess.run(
        [str(part) for part in command], env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - start


def take_turns(
    made: Mapping[str, tuple[Path, float]], lengths: tuple[str, str], rounds: int
) -> dict[str, list[dict[str, Any]]]:
    processes = {name: _start(name, directory, lengths) for name, (directory, _) in made.items()}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in processes}
    try:
        for number in range(rounds + 1):
            for name, process in processes.items():
                answer = ask(name, process)
                if number:  # the first one compiles
                    found[name].append({**answer, "made": made[name][1]})
                print(f"round {number}, {name}: {answer['seconds']:.2f} s", file=sys.stderr, flush=True)
    finally:
        for process in processes.values():
            process.kill()
    return found


def _start(name: str, directory: Path, lengths: tuple[str, str]) -> subprocess.Popen[str]:
    other = ANSWERS[name] in PEERS
    return subprocess.Popen(
        [PEER_PYTHON if other else sys.executable, "-W", "ignore", str(Path(__file__).with_name("peer.py")), name,
         str(directory), *lengths],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **({"PYTHONPATH": ""} if other else {})},
        text=True,
    )  # fmt: skip


def with_memory(
    rows: dict[str, dict[str, Any]], figures: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, dict[str, Any]]:
    """The rows, with seconds to make and to load each directory, and the process's memory in MB."""
    for name, answers in figures.items():
        last = answers[-1]
        rows[name] |= {"made": last["made"], "load": last["load"], **last["memory"]}
        rows[name]["step"] = statistics.median(
            (one["seconds"] - one["first"]) / (len(one["tokens"]) - 1) for one in answers
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
