# SPDX-License-Identifier: Apache-2.0
"""The model card of a trained policy, with what the hub reads of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from paritas.printable import printable


def card(known: str, told: Mapping[str, Any]) -> str:
    """README.md: metadata of the hub's, how well it does, how it is used, and what it was trained with.

    known: the environment's id. told: what `Agent.told` says.
    """
    environment = known or "an environment"
    algorithm = str(told.get("algorithm", "reinforcement learning"))
    evaluation: dict[str, Any] = told.get("evaluation") or {}
    lines = ["---", "library_name: paritas", "tags:", "- reinforcement-learning", "- deep-reinforcement-learning"]
    if known:
        lines.append(f"- {json.dumps(known)}")
    if evaluation:
        result = f"{evaluation['mean']:.2f} +/- {evaluation['deviation']:.2f}"
        lines += [
            "model-index:", f"- name: {json.dumps(algorithm)}", "  results:", "  - task:",
            "      type: reinforcement-learning", "      name: reinforcement-learning", "    dataset:",
            f"      name: {json.dumps(environment)}", f"      type: {json.dumps(environment)}", "    metrics:",
            "    - type: mean_reward", f"      value: {json.dumps(result)}", "      name: mean_reward",
            "      verified: false",
        ]  # fmt: skip
    lines += ["---", "", f"# {algorithm} in {environment}", ""]
    if evaluation:
        lines += [
            f"Return over {evaluation['episodes']} episodes, always with the most probable action: "
            f"{evaluation['mean']:.1f} ± {evaluation['deviation']:.1f}.", "",
        ]  # fmt: skip
    if "engine" in told:
        lines += [f"Trained for {told.get('steps', 0):,} steps, gradients by {told['engine']}.", ""]
    lines += [
        "```python", "import gymnasium", "", "from paritas.rl import Agent", "",
        f"agent = Agent.from_pretrained({json.dumps('.')})  # this directory, or its name on the hub",
        f"env = gymnasium.make({json.dumps(environment)}, render_mode=\"human\")",
        "observation, _ = env.reset()", "while True:", "    action = agent.predict(observation)",
        "    observation, reward, ended, cut, _ = env.step(action)", "    if ended or cut:", "        break", "```", "",
    ]  # fmt: skip
    if settings := told.get("settings"):
        lines += ["| setting | value |", "|---|---|"]
        lines += [f"| {name} | {json.dumps(value)} |" for name, value in settings.items()]
        lines.append("")
    return printable("\n".join(lines))
