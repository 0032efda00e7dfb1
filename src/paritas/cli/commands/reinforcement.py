# SPDX-License-Identifier: Apache-2.0
"""`paritas train ppo`, `dqn` and `reinforce`: a policy learns in an environment, an engine computes the gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from paritas.cli.commands.train import TrainEngine
from paritas.cli.options import Debug, Json, Quiet, engine_names
from paritas.cli.outcome import DIVERGES, OK, print_json, say

Env = Annotated[str, typer.Option(help="An id of gymnasium's: CartPole-v1.", show_default=False)]
Steps = Annotated[int, typer.Option(help="Of all environments together; by default as tuned for this environment.")]
Seed = Annotated[int, typer.Option(help="Of weights, environments, and all that is drawn.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting: learning_rate=0.001, hidden=64,64.")
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="A directory for all that comes of it; by default ALGORITHM-ENV.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the training in OUT.")]
Parallel = Annotated[bool, typer.Option("--parallel", help="Each environment in a process of its own.")]
Episodes = Annotated[int, typer.Option(help="How many the trained policy is evaluated in; 0 for none.")]
Video = Annotated[bool, typer.Option("--video", help="Write an episode as OUT/evaluation.mp4.")]
PortTo = Annotated[str, typer.Option(autocompletion=engine_names, help="Port the policy to OUT/port, and verify it.")]
Every = Annotated[
    int, typer.Option("--checkpoint-every", help="Updates between two checkpoints, at which episodes begin anew.")
]


def _learning(algorithm: str, about: str) -> Callable[..., int]:
    """The command of an algorithm: all take the same options. about: its help."""

    def command(
        env: Env = "",
        engine: TrainEngine = "mindspore",
        steps: Steps = 0,
        seed: Seed = 0,
        set_: Set = None,
        out: Out = None,
        resume: Resume = False,
        parallel: Parallel = False,
        episodes: Episodes = 100,
        video: Video = False,
        port_to: PortTo = "",
        checkpoint_every: Every = 0,
        quiet: Quiet = False,
        as_json: Json = False,
        debug: Debug = False,
    ) -> int:
        return _trained(algorithm, locals())

    command.__name__, command.__doc__ = algorithm, about
    return command


ppo = _learning(
    "ppo",
    """Train a policy by proximal policy optimisation, with gradients by an engine.

    Needs pip install 'paritas[rl]', and for environments with Box2D 'paritas[box2d]'. What is known to work for an
    environment is taken for it; --set changes single settings.

    **Examples**

      paritas train ppo --env CartPole-v1 --engine torch --out cartpole

      paritas train ppo --env LunarLander-v3 --engine mindspore --video --port-to openvino

      paritas train ppo --env CartPole-v1 --out cartpole --resume --steps 200000
    """,
)

reinforce = _learning(
    "reinforce",
    """Train a policy by the plain policy gradient, with gradients by an engine.

    **Examples**

      paritas train reinforce --env CartPole-v1 --engine torch
    """,
)

dqn = _learning(
    "dqn",
    """Learn what actions are worth by deep Q-learning, with gradients by an engine.

    **Examples**

      paritas train dqn --env CartPole-v1 --engine torch
    """,
)


def _trained(algorithm: str, given: dict[str, Any]) -> int:
    from paritas.cli.bar import Bar
    from paritas.rl import runs
    from paritas.run.engine import about

    as_json = given["as_json"]
    chosen: dict[str, Any] = runs.settings(given["set_"] or [])
    if given["steps"]:
        chosen["steps"] = given["steps"]
    out = given["out"] or Path(f"{algorithm}-{given['env'].replace('/', '-').replace(':', '-')}")
    wish = runs.Wish(
        algorithm, given["env"], about(given["engine"]).name, out, given["seed"], chosen, given["resume"],
        given["parallel"], given["episodes"], given["video"], given["port_to"], given["checkpoint_every"],
    )  # fmt: skip
    with Bar(f"{algorithm} in {given['env']}", "steps", quiet=given["quiet"]) as bar:

        def progress(told: dict[str, Any], steps: int) -> None:
            earned = "no episode is over yet" if told["return"] is None else f"return {told['return']:.1f}"
            bar(min(told["step"], steps), steps, f"{earned}, {told['steps_per_second']:,.0f} steps/s")

        done = runs.run(wish, progress, lambda line: say(line, err=as_json))
    rate = done.steps / max(done.seconds, 1e-9)
    say(
        f"{done.steps:,} steps in {done.seconds:.1f} s ({rate:,.0f} steps/s). {out}: {', '.join(done.written)}",
        err=as_json,
    )
    if as_json:
        told = {
            "out": str(out), "steps": done.steps, "seconds": done.seconds, "written": list(done.written),
            "evaluation": done.evaluation.to_json() if done.evaluation else None, "verdict": done.verdict or None,
        }  # fmt: skip
        print_json(told)
    return OK if done.verdict in ("", "agrees") else DIVERGES
