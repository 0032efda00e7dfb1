# SPDX-License-Identifier: Apache-2.0
"""Contenders that take turns, each in a process of its own: it makes ready once, and answers one line with another.

A benchmark calls itself: `start` runs its file with `--serve NAME DIR`, and that process calls `answer`. The first
turn of every contender warms it up, and is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from results import machine


def parser(about: str | None, contenders: Iterable[str], rounds: int) -> argparse.ArgumentParser:
    """The options of every such benchmark; --serve is how it calls itself."""
    found = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(contenders)
    found.add_argument("--contenders", nargs="+", choices=names, default=names)
    found.add_argument("--rounds", type=int, default=rounds, help=f"turns of each ({rounds})")
    found.add_argument("--serve", nargs=2, metavar=("NAME", "DIR"), help=argparse.SUPPRESS)
    return found


def load(cls: str, directory: str, engine: str, dtype: str, weights: str = "") -> Any:
    """The model of that class: of transformers, or, where there is an engine, of `paritas.transformers`."""
    import torch
    import transformers

    told: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if not engine:
        return getattr(transformers, cls).from_pretrained(directory, **told)
    import paritas.transformers

    told |= {"engine": engine, "weights": weights}
    return getattr(paritas.transformers, cls).from_pretrained(directory, **told)


def start(script: str, name: str, directory: str, peer: str = "") -> subprocess.Popen[str]:
    """The process of the contender `name`, with the ports that it makes in `directory`.

    peer: the interpreter of another environment, which has packages of its own and must not see those of this one.
    """
    return subprocess.Popen(
        [peer or sys.executable, "-W", "ignore", script, "--serve", name, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={
            **os.environ, "PARITAS_CACHE": directory + "/ports", "GLOG_v": "4", **({"PYTHONPATH": ""} if peer else {}),
        },
        text=True,
    )  # fmt: skip


def ask(name: str, process: subprocess.Popen[str], what: Any = None) -> Any:
    """What the contender answers; exits if it has ended."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(what) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    if not line:
        raise SystemExit(f"{name} ended with exit code {process.wait()}")
    return json.loads(line)


def take_turns(
    script: str,
    names: Iterable[str],
    directory: str,
    rounds: int,
    what: Any = None,
    *,
    warm: Any = None,
    peers: Mapping[str, str] | None = None,
) -> dict[str, list[Any]]:
    """The answers of each to `what`, one per round, without that of the warm-up, which is to `warm` if that is another.

    An answer has its time in "seconds". peers: the interpreters of contenders that have another, see `start`.
    """
    processes = {name: start(script, name, directory, (peers or {}).get(name, "")) for name in names}
    found: dict[str, list[Any]] = {name: [] for name in processes}
    try:
        for number in range(rounds + 1):
            for name, process in processes.items():
                answer_ = ask(name, process, what if number or warm is None else warm)
                if number:  # the first one compiles
                    found[name].append(answer_)
                print(f"round {number}, {name}: {answer_['seconds']:.2f} s", file=sys.stderr, flush=True)
    finally:
        for process in processes.values():
            process.kill()
    return found


class Clock:
    """A streamer that only looks at the time: `times[0]` is the prompt's, `times[1]` the first token's.

    In seconds, of `time.perf_counter`.
    """

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def compared(figures: dict[str, list[Any]]) -> dict[str, dict[str, Any]]:
    """Medians of "seconds" and "first", the time of the first token, and "tokens" beside the first contender's.

    ratio: the first contender's time over this one's. same: how many of the first tokens are its tokens.
    """
    baseline = next(iter(figures.values()))
    rows = {}
    for name, rounds in figures.items():
        seconds, first = (statistics.median(one[key] for one in rounds) for key in ("seconds", "first"))
        tokens = rounds[0]["tokens"]
        pairs = enumerate(zip(tokens, baseline[0]["tokens"], strict=True))
        rows[name] = {
            "seconds": seconds,
            "first": first,
            "ratio": statistics.median(one["seconds"] for one in baseline) / seconds,
            "same": next((i for i, (got, want) in pairs if got != want), len(tokens)),
            "distinct": len(set(tokens)),
            "all": [one["seconds"] for one in rounds],
        }
    return rows


def table(title: str, rows: dict[str, dict[str, Any]], new: int) -> str:
    """What `compared` found; new: how many tokens were generated."""
    head = f"{'':20}{'seconds':>9}{'first':>9}{'tokens/s':>10}{'ratio':>8}"
    lines = [title, f"{head}   tokens as {next(iter(rows))}'s, different ones"]
    for name, row in rows.items():
        rate = (new - 1) / (row["seconds"] - row["first"])
        lines.append(
            f"{name:20}{row['seconds']:>9.2f}{row['first']:>9.2f}{rate:>10.1f}{row['ratio']:>7.2f}x"
            f"   {row['same']} of {new}, {row['distinct']}"
        )
    return "\n".join([*lines, machine()])
