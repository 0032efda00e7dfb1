# SPDX-License-Identifier: Apache-2.0
"""Deep reinforcement learning: policies and values in PyTorch, trained on any engine that has gradients.

from paritas.rl import PPO, evaluate

agent = PPO("CartPole-v1", engine="mindspore").learn()
print(evaluate(agent))
agent.save_pretrained("cartpole")
agent.port("openvino").verify()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paritas.rl.agent import Actor as Actor
    from paritas.rl.agent import Agent as Agent
    from paritas.rl.environments import make as make
    from paritas.rl.evaluation import Evaluation as Evaluation
    from paritas.rl.evaluation import evaluate as evaluate
    from paritas.rl.evaluation import record as record
    from paritas.rl.losses import PolicyLoss as PolicyLoss
    from paritas.rl.losses import QLoss as QLoss
    from paritas.rl.networks import ActorCritic as ActorCritic
    from paritas.rl.networks import QNetwork as QNetwork
    from paritas.rl.policy_gradient import PPO as PPO
    from paritas.rl.policy_gradient import Reinforce as Reinforce
    from paritas.rl.q_learning import DQN as DQN
    from paritas.rl.returns import advantages as advantages
    from paritas.rl.returns import discounted as discounted

_PUBLIC = {
    "Actor": "agent", "Agent": "agent", "make": "environments", "Evaluation": "evaluation", "evaluate": "evaluation",
    "record": "evaluation", "PolicyLoss": "losses", "QLoss": "losses", "ActorCritic": "networks",
    "QNetwork": "networks", "PPO": "policy_gradient", "Reinforce": "policy_gradient", "DQN": "q_learning",
    "advantages": "returns", "discounted": "returns",
}  # fmt: skip

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        from paritas.extras import needing

        with needing("rl", f"paritas.rl.{name}"):
            return getattr(importlib.import_module(f"paritas.rl.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'paritas.rl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
