# SPDX-License-Identifier: Apache-2.0
"""Trains policies, one training after the other, each in a process of its own, and appends what came of it as a line.

    .venv/bin/python benchmarks/reinforcement.py runs.jsonl --algorithm ppo --env CartPole-v1 --seeds 0-4
    .venv/bin/python benchmarks/reinforcement.py runs.jsonl --algorithm ppo --env LunarLander-v3 --peer SITE
    .venv/bin/python benchmarks/reinforcement.py runs.jsonl --collect --peer SITE
    .venv/bin/python benchmarks/reinforcement.py runs.jsonl --surrogates --seeds 0-2 --picture surrogates.png
    .venv/bin/python benchmarks/reinforcement.py runs.jsonl --publish    # the last of each, for docs/

Each line holds the seconds of the training (wall and CPU), the returns of 100 episodes with other seeds, and the curve.
SITE is a folder with stable-baselines3: `pip install --no-deps --target SITE stable-baselines3`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: What Stable-Baselines3 is told where it is the peer: RL Baselines3 Zoo's settings, in its own words.
PEER_SETTINGS: dict[str, dict[str, Any]] = {
    "LunarLander-v3": {
        "environments": 16, "steps": 614_400,
        "told": {
            "n_steps": 1024, "batch_size": 64, "n_epochs": 4, "gamma": 0.999, "gae_lambda": 0.98, "ent_coef": 0.01,
        },
    },
    "CartPole-v1": {
        "environments": 8, "steps": 100_000,
        "told": {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98, "gae_lambda": 0.8, "ent_coef": 0.0},
    },
}  # fmt: skip


def train(algorithm: str, env: str, engine: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """One training of ours."""
    from paritas.rl import evaluate
    from paritas.rl.runs import KINDS

    wall, cpu = time.perf_counter(), time.process_time()
    with KINDS[algorithm](env, engine, seed, **settings) as training:
        agent = training.learn()
        spent = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        found = evaluate(agent, episodes=100)
        curve = [[told["step"], told["return"]] for told in training.history]
        every = max(1, len(curve) // 100)
        parts = {
            part: sum(told[part] for told in training.history)
            for part in ("collecting_seconds", "network_seconds", "learning_seconds")
        }
        return {
            **spent, **parts, "steps": training.done, **found.to_json(), "curve": curve[::every], "settings": settings,
        }  # fmt: skip


def train_peer(env: str, seed: int) -> dict[str, Any]:
    """The same by Stable-Baselines3, with its evaluation."""
    import gymnasium
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    told = PEER_SETTINGS[env]
    wall, cpu = time.perf_counter(), time.process_time()
    envs = make_vec_env(env, told["environments"], seed=seed)
    model = PPO("MlpPolicy", envs, seed=seed, device="cpu", **told["told"])
    model.learn(told["steps"])
    spent = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    apart = Monitor(gymnasium.make(env))
    apart.reset(seed=10_000)
    returns, lengths = evaluate_policy(model, apart, 100, return_episode_rewards=True)
    import numpy as np

    return {
        **spent, "steps": model.num_timesteps, "episodes": 100, "mean": float(np.mean(returns)),
        "deviation": float(np.std(returns)), "length": float(np.mean(lengths)), "returns": returns,
        "settings": told["told"],
    }  # fmt: skip


def collect(env: str, count: int, steps: int) -> dict[str, Any]:
    """Steps per second of our loop, and of what of it is outside of the networks; the best of eight rollouts."""
    from paritas.rl import PPO

    with PPO(env, "torch", environments=count, rollout=steps, batch=0) as training:
        return _collected(training.collect, _timed(training.agent.network), count, steps)


def collect_peer(env: str, count: int, steps: int) -> dict[str, Any]:
    """The same of Stable-Baselines3, whose networks are four modules."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    model = PPO("MlpPolicy", make_vec_env(env, count, seed=0), n_steps=steps, batch_size=count * steps, device="cpu")
    _, callback = model._setup_learn(10**9, None)
    policy = model.policy
    networks = (policy.pi_features_extractor, policy.mlp_extractor, policy.action_net, policy.value_net)

    def rollout() -> None:
        model.collect_rollouts(model.env, callback, model.rollout_buffer, steps)

    return _collected(rollout, _timed(*networks), count, steps)


def _timed(*modules: Any) -> list[float]:
    """What these modules' forwards take from now on, added up in the one number of the list: CPU seconds."""
    spent = [0.0]
    for module in modules:

        def forward(*given: Any, original: Any = module.forward) -> Any:
            began = time.thread_time()
            out = original(*given)
            spent[0] += time.thread_time() - began
            return out

        module.forward = forward
    return spent


def _collected(rollout: Callable[[], Any], spent: list[float], count: int, steps: int) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    best = outside = 0.0
    for _ in range(8):
        spent[0], began = 0.0, time.thread_time()
        rollout()
        took = time.thread_time() - began
        best, outside = max(best, count * steps / took), max(outside, count * steps / (took - spent[0]))
    return {"per_second": best, "per_second_outside": outside, "environments": count}


def surrogates(seeds: list[int], steps: int) -> dict[str, Any]:
    """What the clip is for: many epochs on what was collected, with and without it, and the plain policy gradient."""
    from paritas.rl import PPO

    told: dict[str, Any] = {}
    for surrogate in ("clipped", "unclipped", "log_probability"):
        runs = []
        for seed in seeds:
            settings = {"schedule": "constant", "clip_schedule": "constant", "learning_rate": 3e-3, "rollout": 128}
            with PPO("CartPole-v1", "torch", seed, surrogate=surrogate, steps=steps, **settings) as training:
                training.learn()
                runs.append(
                    [
                        {name: record[name] for name in ("step", "return", "approx_kl", "ratio_max")}
                        for record in training.history
                    ]
                )
        told[surrogate] = runs
    return {"histories": told}


def publish(path: Path) -> None:
    """The last line of each kind, environment, way of learning, engine and seed."""
    import results

    last = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        key = [told.get(name) for name in ("kind", "env", "algorithm", "engine", "peer", "seed")]
        last[tuple(key)] = {name: value for name, value in told.items() if name not in ("returns", "histories")}
    print(results.write("reinforcement", {"runs": list(last.values())}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--algorithm", default="ppo")
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--seeds", default="0", help="0-4, or 0,3")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--peer", default="", help="a folder with stable-baselines3, which then does it")
    parser.add_argument("--collect", action="store_true", help="steps per second outside of networks")
    parser.add_argument("--surrogates", action="store_true")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--publish", action="store_true", help="write benchmarks/results/reinforcement.json")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.publish:
        publish(given.out)
        return
    first, _, last = given.seeds.partition("-")
    seeds = list(range(int(first), int(last) + 1)) if last else [int(seed) for seed in given.seeds.split(",")]
    if given.here:
        if given.peer:
            sys.path.append(given.peer)
        told = _one(given, seeds)
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")
        print({name: value for name, value in told.items() if not isinstance(value, (list, dict))}, flush=True)
        return
    words = sys.argv[1:]
    for seed in seeds if not given.surrogates else [given.seeds]:
        subprocess.run([sys.executable, __file__, *words, "--seeds", str(seed), "--here"], check=True)


def _one(given: argparse.Namespace, seeds: list[int]) -> dict[str, Any]:
    from paritas.rl.runs import settings

    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    what: dict[str, Any] = {"env": given.env, "seed": seeds[0], "peer": bool(given.peer), "machine": machine}
    if given.surrogates:
        told = surrogates(seeds, 60_000)
        if given.picture:
            from paritas.rl.drawing import compare

            compare(told["histories"], given.picture, "CartPole-v1, 20 epochs at a high rate of learning")
        return {"kind": "surrogates", **what, **told}
    if given.collect:
        measured = collect_peer if given.peer else collect
        return {"kind": "collect", **what, **measured(given.env, 16, 256)}
    if given.peer:
        return {
            "kind": "train",
            "algorithm": "ppo",
            "engine": "Stable-Baselines3",
            **what,
            **train_peer(given.env, seeds[0]),
        }
    found = train(given.algorithm, given.env, given.engine, seeds[0], settings(given.set))
    return {"kind": "train", "algorithm": given.algorithm, "engine": given.engine, **what, **found}


if __name__ == "__main__":
    main()
