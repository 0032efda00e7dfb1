# SPDX-License-Identifier: Apache-2.0
"""A training from beginning to end, as `paritas train ppo` does it: everything that comes of it is in one directory.

```
OUT/policy/             what Agent.from_pretrained loads, with its model card
OUT/checkpoint/         what a training goes on with
OUT/progress.jsonl      a record for each update
OUT/learning_curve.png
OUT/evaluation.json     returns of whole episodes, and evaluation.mp4 one of them
OUT/port/               the policy on another engine, verified
```
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paritas import leftovers
from paritas.errors import InputError
from paritas.rl import storage
from paritas.rl.drawing import learning_curve
from paritas.rl.evaluation import Evaluation, can_record, evaluate, record
from paritas.rl.policy_gradient import PPO, Reinforce
from paritas.rl.q_learning import DQN
from paritas.rl.training import Training
from paritas.run.engine import engine as engine_of

#: By the word of the command.
KINDS: dict[str, type[Training]] = {kind.algorithm: kind for kind in (PPO, Reinforce, DQN)}

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Wish:
    """What a command asks for. settings: those that differ from the tuned ones."""

    algorithm: str
    env: str
    engine: str
    out: Path
    seed: int = 0
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    resume: bool = False
    parallel: bool = False
    episodes: int = 100
    video: bool = False
    port_to: str = ""
    checkpoint_every: int = 0


@dataclasses.dataclass(frozen=True)
class Done:
    """What came of it. verdict: of the port, "" where none was wanted."""

    steps: int
    seconds: float
    evaluation: Evaluation | None
    verdict: str
    written: tuple[str, ...]


def run(wish: Wish, progress: Callable[[dict[str, Any], int], None], say: Say) -> Done:
    """Train, evaluate, and write. progress: called with each record, and with how many steps there are to be.

    Raises what `Training` does; `InputError` where `out` holds a training already and none is to be resumed.
    """
    if wish.port_to:
        engine_of(wish.port_to)
    if wish.video:
        can_record()
    training = _begun(wish)
    out = wish.out
    where = f"{wish.algorithm} in {training.agent.environment}, gradients by {training.engine}"
    begun = f"after {training.done:,} steps" if training.done else "from the beginning"
    say(f"{where}, seed {training.seed}: {begun} to {training.settings.steps:,}")
    with training:
        agent = training.learn(
            progress=lambda told: progress(told, training.settings.steps),
            checkpoint=out / "checkpoint",
            checkpoint_every=wish.checkpoint_every,
        )
        seconds = sum(told["seconds"] for told in training.history)
        found = None
        if wish.episodes:
            found = evaluate(agent, training.agent.environment, wish.episodes, options=training.options)
            agent.told["evaluation"] = {n: v for n, v in found.to_json().items() if n != "returns"}
            storage.write_json(out / "evaluation.json", found.to_json())
            say(f"Evaluation: {found}")
        agent.save_pretrained(out / "policy")
        _write_lines(out / "progress.jsonl", training.history)
        learning_curve(training.history, out / "learning_curve.png", where)
        written = ["policy", "checkpoint", "progress.jsonl", "learning_curve.png"]
        written += ["evaluation.json"] if found else []
        if wish.video:
            earned = record(agent, out / "evaluation.mp4", options=training.options)
            say(f"{out / 'evaluation.mp4'}: an episode with a return of {earned:.1f}")
            written.append("evaluation.mp4")
        verdict = ""
        if wish.port_to:
            port = agent.port(wish.port_to)
            verdict = port.verify().verdict
            port.save(out / "port", force=True)
            port.close()
            say(f"{out / 'port'}: the policy on {wish.port_to}: {verdict}")
            written.append("port")
        return Done(training.done, seconds, found, verdict, tuple(written))


def _begun(wish: Wish) -> Training:
    checkpoint = wish.out / "checkpoint"
    kind = KINDS[wish.algorithm]
    if wish.resume:
        return kind.resume(checkpoint, wish.env or None, parallel=wish.parallel, **wish.settings)
    if not wish.env:
        raise InputError("Name the environment: --env CartPole-v1")
    if checkpoint.exists():
        raise InputError(f"{wish.out} holds a training already: go on with it by --resume, or name another --out.")
    return kind(wish.env, wish.engine, wish.seed, parallel=wish.parallel, **wish.settings)


def _write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    staging = leftovers.beside(path.absolute(), "tmp")
    staging.write_text("".join(json.dumps(told) + "\n" for told in records), encoding="utf-8")
    staging.replace(path)


def settings(given: list[str]) -> dict[str, str]:
    """Settings as a command has them: NAME=VALUE. Raises `InputError` for what is none."""
    found = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InputError(f"--set {word}: it has to be NAME=VALUE, as --set learning_rate=0.001.")
        found[name.strip()] = value.strip()
    return found
