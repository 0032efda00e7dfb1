# SPDX-License-Identifier: Apache-2.0
"""What is minimised, as PyTorch modules that hold the networks: each is captured once and trained by any engine.

What changes during a training, as the range of the clip, is a tensor among the inputs, so that the graph stays.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from paritas.rl.distributions import Distribution

Surrogate = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def clipped(ratio: torch.Tensor, log_prob: torch.Tensor, advantages: torch.Tensor, clip: torch.Tensor) -> torch.Tensor:
    """PPO's clipped surrogate objective: the smaller of the ratio and the clipped ratio, times the advantage."""
    return torch.minimum(ratio * advantages, torch.clamp(ratio, 1.0 - clip, 1.0 + clip) * advantages)


def unclipped(
    ratio: torch.Tensor, log_prob: torch.Tensor, advantages: torch.Tensor, clip: torch.Tensor
) -> torch.Tensor:
    """The ratio times the advantage, without a bound."""
    return ratio * advantages


def log_probability(
    ratio: torch.Tensor, log_prob: torch.Tensor, advantages: torch.Tensor, clip: torch.Tensor
) -> torch.Tensor:
    """The plain policy gradient: the logarithm of the probability times the advantage."""
    return log_prob * advantages


#: What is made large, of each action by itself.
SURROGATES: dict[str, Surrogate] = {
    "clipped": clipped, "unclipped": unclipped, "log_probability": log_probability,
}  # fmt: skip

#: What `PolicyLoss` says beside the loss, in this order.
POLICY_STATISTICS = (
    "loss", "policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "ratio", "ratio_max",
)  # fmt: skip


class PolicyLoss(nn.Module):
    """The loss of a policy and its value on what was collected.

    Args:
        policy: observations [n, ...] -> parameters [n, width] and values [n].
        distribution: what the parameters mean.
        surrogate: "clipped", "unclipped" or "log_probability".
        normalise: whether advantages of a batch get mean 0 and deviation 1.
        clips_values: whether a value may leave the old one by `value_clip` at most.
    """

    def __init__(
        self,
        policy: nn.Module,
        distribution: Distribution,
        surrogate: str = "clipped",
        normalise: bool = True,
        clips_values: bool = False,
    ) -> None:
        super().__init__()
        self.policy, self.distribution, self.surrogate = policy, distribution, surrogate
        self.normalise, self.clips_values = normalise, clips_values

    def forward(
        self,
        observations: torch.Tensor,
        actions: torch.Tensor,
        log_probs: torch.Tensor,
        advantages: torch.Tensor,
        returns: torch.Tensor,
        values: torch.Tensor,
        clip: torch.Tensor,
        value_clip: torch.Tensor,
        entropy_weight: torch.Tensor,
        value_weight: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[n, ...], [n, *action], then [n] each of the policy that acted; the last four are numbers.

        Returns the loss and the numbers of `POLICY_STATISTICS`, [8].
        """
        parameters, predicted = self.policy(observations)
        log_prob = self.distribution.log_prob(parameters, actions)
        entropy = self.distribution.entropy(parameters).mean()
        if self.normalise:
            centred = advantages - advantages.mean()
            deviation = (centred.square().sum() / (len(advantages) - 1)).sqrt()
            advantages = centred / (deviation + 1e-8)
        change = log_prob - log_probs
        ratio = torch.exp(change)
        policy_loss = -SURROGATES[self.surrogate](ratio, log_prob, advantages, clip).mean()
        if self.clips_values:
            predicted = values + torch.clamp(predicted - values, -value_clip, value_clip)
        value_loss = F.mse_loss(returns, predicted)
        loss = policy_loss - entropy_weight * entropy + value_weight * value_loss
        kl = ((ratio - 1.0) - change).mean()
        outside = ((ratio - 1.0).abs() > clip).float().mean()
        statistics = [loss, policy_loss, value_loss, entropy, kl, outside, ratio.mean(), ratio.max()]
        return loss, torch.stack([number.detach() for number in statistics])


#: What `QLoss` says beside the loss, in this order.
Q_STATISTICS = ("loss", "q")


class QLoss(nn.Module):
    """How far the values of the actions that were taken are from what came of them (Huber's loss).

    Args:
        q: observations [n, ...] -> values [n, actions].
        target: the same, of earlier weights; it is not trained.
        double: whether `q` chooses the next action that `target` values (van Hasselt et al., 2015).
    """

    def __init__(self, q: nn.Module, target: nn.Module, double: bool = False) -> None:
        super().__init__()
        self.q, self.target, self.chooses = q, target.requires_grad_(False), double

    def forward(
        self,
        observations: torch.Tensor,
        actions: torch.Tensor,
        rewards: torch.Tensor,
        following: torch.Tensor,
        goes_on: torch.Tensor,
        discount: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[n, ...], int64 [n], [n], [n, ...] the observations that followed, [n] 0 where the episode had ended.

        Returns the loss and the numbers of `Q_STATISTICS`, [2].
        """
        later = self.target(following)
        if self.chooses:
            best = later.gather(-1, self.q(following).detach().argmax(-1, keepdim=True)).squeeze(-1)
        else:
            best = later.max(-1).values
        wanted = (rewards + goes_on * discount * best).detach()
        values = self.q(observations).gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        loss = F.smooth_l1_loss(values, wanted)
        return loss, torch.stack([loss.detach(), values.detach().mean()])
