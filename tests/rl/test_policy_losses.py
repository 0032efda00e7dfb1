# SPDX-License-Identifier: Apache-2.0
"""PPO's loss against its formula, case by case: the regions in which it is clipped, and those in which it is not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from paritas.rl.distributions import Categorical, Distribution, Gaussian, MultiCategorical
from paritas.rl.losses import POLICY_STATISTICS, SURROGATES, PolicyLoss, QLoss

CLIP = 0.2

#: Ratio, advantage -> what the smaller of both objectives is, whether it is clipped, and its sign. Where it is clipped
#: there is no gradient.
REGIONS = [
    (1.1, 2.0, 1.1 * 2.0, False, 1),
    (1.1, -2.0, 1.1 * -2.0, False, -1),
    (0.9, 2.0, 0.9 * 2.0, False, 1),
    (0.9, -2.0, 0.9 * -2.0, False, -1),
    (0.5, 2.0, 0.5 * 2.0, False, 1),  # too seldom, and good: it is made more probable again
    (0.5, -2.0, 0.8 * -2.0, True, -1),  # too seldom already, and bad
    (1.5, 2.0, 1.2 * 2.0, True, 1),  # often enough already, and good
    (1.5, -2.0, 1.5 * -2.0, False, -1),  # too often, and bad: it is made less probable
]


class Fixed(nn.Module):
    """A policy whose logits and value are its weights, whatever it sees."""

    def __init__(self, logits: list[float], value: float = 0.0) -> None:
        super().__init__()
        self.logits, self.value = nn.Parameter(torch.tensor(logits)), nn.Parameter(torch.tensor(value))

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.logits.expand(len(observations), -1), self.value.expand(len(observations))


def loss_of(
    policy: nn.Module,
    ratio: float,
    advantage: float,
    *,
    surrogate: str = "clipped",
    entropy: float = 0.0,
    value_weight: float = 0.0,
    value_clip: float = 0.0,
    returns: float = 0.0,
    old_value: float = 0.0,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Of one action, 0, that is `ratio` times as probable as it was."""
    made = PolicyLoss(policy, Categorical(2), surrogate, normalise=False, clips_values=bool(value_clip))
    with torch.no_grad():
        now = torch.log_softmax(policy(torch.zeros(1, 1))[0], -1)[0, 0]
    numbers = [torch.tensor(number) for number in (CLIP, value_clip, entropy, value_weight)]
    given = [torch.tensor([float(now) - math.log(ratio)]), torch.tensor([advantage]), torch.tensor([returns])]
    loss, told = made(torch.zeros(1, 1), torch.tensor([0]), *given, torch.tensor([old_value]), *numbers)
    return loss, dict(zip(POLICY_STATISTICS, told.tolist(), strict=True))


@pytest.mark.parametrize(("ratio", "advantage", "objective", "is_clipped", "sign"), REGIONS)
def test_the_regions_of_the_clipped_objective(
    ratio: float, advantage: float, objective: float, is_clipped: bool, sign: int
) -> None:
    policy = Fixed([0.3, -0.2])
    loss, told = loss_of(policy, ratio, advantage)
    assert loss.item() == pytest.approx(-objective, rel=1e-5) and math.copysign(1, -loss.item()) == sign
    assert told["ratio"] == pytest.approx(ratio, rel=1e-5)
    assert told["clip_fraction"] == float(abs(ratio - 1) > CLIP)
    assert told["approx_kl"] == pytest.approx(ratio - 1 - math.log(ratio), rel=1e-4)
    loss.backward()
    gradient = policy.logits.grad
    assert gradient is not None
    if is_clipped:
        assert not gradient.any()
    else:  # of -ratio * advantage by the logit of the action that was taken
        probability = torch.softmax(policy.logits, -1)[0].item()
        assert float(gradient[0]) == pytest.approx(-advantage * ratio * (1 - probability), rel=1e-4)


@pytest.mark.parametrize(("ratio", "advantage", "objective", "is_clipped", "sign"), REGIONS)
def test_without_a_clip_every_region_has_a_gradient(
    ratio: float, advantage: float, objective: float, is_clipped: bool, sign: int
) -> None:
    policy = Fixed([0.3, -0.2])
    loss, _ = loss_of(policy, ratio, advantage, surrogate="unclipped")
    assert loss.item() == pytest.approx(-ratio * advantage, rel=1e-5)
    loss.backward()
    assert policy.logits.grad is not None and policy.logits.grad.all()


def test_the_plain_policy_gradient_looks_at_no_ratio() -> None:
    policy = Fixed([0.3, -0.2])
    gradients = []
    for ratio in (0.5, 1.0, 2.0):
        policy.logits.grad = None
        loss_of(policy, ratio, 2.0, surrogate="log_probability")[0].backward()
        assert policy.logits.grad is not None
        gradients.append(policy.logits.grad.clone())
    probability = torch.softmax(policy.logits, -1)[0].item()
    for gradient in gradients:
        assert float(gradient[0]) == pytest.approx(-2.0 * (1 - probability), rel=1e-5)


def test_at_the_ratio_1_all_three_have_one_gradient() -> None:
    found = []
    for surrogate in SURROGATES:
        policy = Fixed([0.3, -0.2])
        loss_of(policy, 1.0, 2.0, surrogate=surrogate)[0].backward()
        assert policy.logits.grad is not None
        found.append(policy.logits.grad)
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_entropy_and_values_are_added() -> None:
    policy = Fixed([0.0, 0.0], value=1.0)
    loss, told = loss_of(policy, 1.0, 0.0, entropy=0.5, value_weight=0.25, returns=3.0)
    assert told["entropy"] == pytest.approx(math.log(2)) and told["value_loss"] == pytest.approx(4.0)
    assert loss.item() == pytest.approx(-0.5 * math.log(2) + 0.25 * 4.0, rel=1e-5)


@pytest.mark.parametrize(("value", "old", "wanted"), [(1.0, 0.0, 0.2), (0.1, 0.0, 0.1), (-1.0, 0.0, -0.2)])
def test_values_stay_near_the_old_ones(value: float, old: float, wanted: float) -> None:
    told = loss_of(Fixed([0.0, 0.0], value), 1.0, 0.0, value_clip=0.2, returns=3.0, old_value=old)[1]
    assert told["value_loss"] == pytest.approx((3.0 - wanted) ** 2, rel=1e-5)


def test_advantages_get_mean_0_and_deviation_1() -> None:
    policy = Fixed([0.0, 0.0])
    rows, numbers = torch.zeros(4), [torch.tensor(n) for n in (CLIP, 0.0, 0.0, 0.0)]
    advantages = torch.tensor([1.0, 2.0, 3.0, 10.0])
    actions, old = torch.zeros(4, dtype=torch.int64), torch.full((4,), math.log(0.5) - 0.1)
    loss = PolicyLoss(policy, Categorical(2), "unclipped")(
        torch.zeros(4, 1), actions, old, advantages, rows, rows, *numbers
    )[0]
    assert abs(loss.item()) < 1e-6  # of equal ratios, whose advantages add up to 0


DISTRIBUTIONS: list[tuple[Distribution, Any]] = [
    (Categorical(4), lambda p: torch.distributions.Categorical(logits=p)),
    (
        Gaussian(3),
        lambda p: torch.distributions.Independent(torch.distributions.Normal(p[:, :3], p[:, 3:].exp()), 1),
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), DISTRIBUTIONS, ids=lambda one: type(one).__name__)
def test_distributions_are_torchs(ours: Distribution, theirs: Any) -> None:
    parameters = torch.randn(6, ours.width, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    actions = ours.sample(parameters.numpy(), ours.noise(rng, (6,)))
    assert actions.shape == (6, *ours.shape) and actions.dtype == ours.dtype
    drawn = torch.from_numpy(actions)
    torch.testing.assert_close(ours.log_prob(parameters, drawn), theirs(parameters).log_prob(drawn))
    torch.testing.assert_close(ours.entropy(parameters), theirs(parameters).entropy())
    np.testing.assert_array_equal(ours.mode(parameters.numpy()), ours.best(parameters).numpy())


def test_several_choices_are_choices_apart() -> None:
    ours = MultiCategorical((2, 3))
    parameters = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    actions = ours.sample(parameters.numpy(), ours.noise(np.random.default_rng(0), (5,)))
    drawn = torch.from_numpy(actions)
    one, two = Categorical(2), Categorical(3)
    wanted = one.log_prob(parameters[:, :2], drawn[:, 0]) + two.log_prob(parameters[:, 2:], drawn[:, 1])
    torch.testing.assert_close(ours.log_prob(parameters, drawn), wanted)
    torch.testing.assert_close(
        ours.entropy(parameters), one.entropy(parameters[:, :2]) + two.entropy(parameters[:, 2:])
    )


def test_draws_have_the_probabilities_that_the_policy_says() -> None:
    logits = np.log(np.array([0.1, 0.2, 0.7], np.float32))
    ours = Categorical(3)
    drawn = ours.sample(np.tile(logits, (20_000, 1)), ours.noise(np.random.default_rng(0), (20_000,)))
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), [0.1, 0.2, 0.7], atol=0.015)


class Table(nn.Module):
    """Values of actions that are its weights."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.values.expand(len(observations), -1)


@pytest.mark.parametrize(
    ("double", "goes_on", "wanted"),
    [(False, 1.0, 1.0 + 0.9 * 7.0), (True, 1.0, 1.0 + 0.9 * 2.0), (False, 0.0, 1.0), (True, 0.0, 1.0)],
)
def test_the_loss_of_q_values(double: bool, goes_on: float, wanted: float) -> None:
    q, target = Table([1.0, 5.0]), Table([7.0, 2.0])
    seen = torch.zeros(1, 1)
    loss, told = QLoss(q, target, double)(
        seen, torch.tensor([0]), torch.tensor([1.0]), seen, torch.tensor([goes_on]), torch.tensor(0.9)
    )
    torch.testing.assert_close(loss, nn.functional.smooth_l1_loss(torch.tensor([1.0]), torch.tensor([wanted])))
    loss.backward()
    assert q.values.grad is not None and float(q.values.grad[1]) == 0 and target.values.grad is None
    assert told.tolist() == pytest.approx([loss.item(), 1.0])
