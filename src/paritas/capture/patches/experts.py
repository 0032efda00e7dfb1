# SPDX-License-Identifier: Apache-2.0
"""Mixtures of experts that loop over the experts which were hit: each expert sees every token instead."""

from __future__ import annotations

from typing import Any

import torch

from paritas.capture.patches import patch


def _all_experts(experts: Any, hidden_states: torch.Tensor, mask: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """mask: [expert, choice, token], 1 where a token is routed; weights: [token, choice]."""
    total = torch.zeros_like(hidden_states)
    for number in range(experts.num_experts):
        share = (mask[number].transpose(0, 1).to(weights.dtype) * weights).sum(-1, keepdim=True)
        total = total + (experts[f"expert_{number}"](hidden_states) * share).to(hidden_states.dtype)
    return total


@patch(
    "switch_transformers",
    "transformers.models.switch_transformers.modeling_switch_transformers.SwitchTransformersExperts.forward",
    upstream="transformers 5.23, modeling_switch_transformers.py, SwitchTransformersExperts.forward (nonzero)",
)
def switch_experts(original: Any) -> Any:
    """The loop runs over the experts that some token was routed to, which is known only with the values."""

    def forward(
        self: Any, hidden_states: torch.Tensor, selected_experts: torch.Tensor, routing_weights: torch.Tensor
    ) -> torch.Tensor:
        return _all_experts(self, hidden_states, selected_experts.permute(2, 1, 0), routing_weights)

    return forward


@patch(
    "nllb-moe",
    "transformers.models.nllb_moe.modeling_nllb_moe.NllbMoeExperts.forward",
    upstream="transformers 5.23, modeling_nllb_moe.py, NllbMoeExperts.forward (nonzero)",
)
def nllb_experts(original: Any) -> Any:
    """The loop runs over the experts that some token was routed to, which is known only with the values."""

    def forward(
        self: Any, hidden_states: torch.Tensor, router_mask: torch.Tensor, router_probs: torch.Tensor
    ) -> torch.Tensor:
        # router_mask is one-hot already; the original encodes it once more, and so does this.
        mask = torch.nn.functional.one_hot(router_mask, num_classes=self.num_experts).permute(2, 1, 0)
        found = _all_experts(self, hidden_states, mask, router_probs)
        return found * (1 - self.moe_token_dropout) if self.moe_token_dropout > 0 else found

    return forward


@patch(
    "switch_transformers",
    "transformers.models.switch_transformers.modeling_switch_transformers.SwitchTransformersTop1Router.forward",
    upstream="transformers 5.23, modeling_switch_transformers.py, SwitchTransformersTop1Router.forward",
)
def switch_router(original: Any) -> Any:
    """The router stores its own classifier cast to float32 while it runs, and torch.export refuses new attributes."""

    def forward(self: Any, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        weight, bias = self.classifier.weight, self.classifier.bias
        logits = torch.nn.functional.linear(
            hidden_states.to(self.dtype), weight.to(self.dtype), None if bias is None else bias.to(self.dtype)
        )
        probabilities = torch.nn.functional.softmax(logits, dim=-1, dtype=self.dtype).to(hidden_states.dtype)
        best, index = torch.max(probabilities, dim=-1, keepdim=True)
        chosen = torch.nn.functional.one_hot(index.squeeze(-1), num_classes=self.num_experts)
        chosen = chosen * (torch.cumsum(chosen, dim=-2) <= self.expert_capacity)
        return chosen, best, logits

    return forward


@patch(
    "jetmoe",
    "transformers.models.jetmoe.modeling_jetmoe.JetMoeTopKGating.forward",
    upstream="transformers 5.23, modeling_jetmoe.py, JetMoeTopKGating.forward (expert_size.tolist())",
)
def jetmoe_gating(original: Any) -> Any:
    """How many tokens each expert gets becomes a list of numbers, which a graph cannot know: here it stays a tensor."""

    def forward(self: Any, hidden_states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits = self.layer(hidden_states).float()
        best, experts = logits.topk(self.top_k, dim=1)
        gates = torch.softmax(best, dim=1).type_as(hidden_states)
        counts = torch.nn.functional.one_hot(experts, self.num_experts).sum((0, 1))
        order = experts.flatten().sort(0)[1]
        rows = order.div(self.top_k, rounding_mode="trunc")
        return order, rows, gates.flatten()[order], counts, logits

    return forward


@patch(
    "jetmoe",
    "transformers.models.jetmoe.modeling_jetmoe.JetMoeParallelExperts.forward",
    upstream="transformers 5.23, modeling_jetmoe.py, JetMoeParallelExperts.forward (split by counts)",
)
def jetmoe_experts(original: Any) -> Any:
    """The rows of each expert are one product of groups, as in the other mixtures of transformers."""

    def forward(self: Any, inputs: torch.Tensor, expert_size: Any) -> torch.Tensor:
        from transformers.integrations import moe  # which registers the operator

        del moe
        counts = torch.as_tensor(expert_size)
        ends = counts.cumsum(0).to(torch.int32)
        found: torch.Tensor = torch.ops.transformers.grouped_mm_fallback(inputs, self.weight.transpose(1, 2), ends)
        return found

    return forward
