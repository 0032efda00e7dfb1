# SPDX-License-Identifier: Apache-2.0
"""Recurrences over tokens as operators, which engines compute in a loop of free length: a trace unrolls them.

Where a cache is gone on with, its state is what they begin with.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F

from paritas.capture.patches import around, patch

#: The state that a cache has handed to the layer that runs: not each layer's code hands it on.
_handed: list[Any] = []


@around
@contextlib.contextmanager
def _states_handed_out() -> Iterator[None]:
    utils = sys.modules.get("transformers.cache_utils")
    if utils is None:
        yield
        return
    own = utils.Cache.get_recurrent_state

    def get_recurrent_state(self: Any, *args: Any, **kwargs: Any) -> Any:
        state = own(self, *args, **kwargs)
        _handed[:] = [state]
        return state

    utils.Cache.get_recurrent_state = get_recurrent_state
    try:
        yield
    finally:
        utils.Cache.get_recurrent_state = own
        _handed.clear()


# --- selective scans ---------------------------------------------------------------------------


@torch.library.custom_op("paritas::selective_scan", mutates_args=())
def selective_scan(
    x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """state = state * exp(dt * A) + dt * B * x for one token after the other; sums of state * C, and the last state.

    x [batch, tokens, heads, width], dt [batch, tokens, heads], A [heads, 1 or states], B and C [batch, tokens, 1 or
    heads, states], state [batch, heads, width, states]. Returns [batch, tokens, heads, width] and a state.
    """
    found = []
    for token in range(x.shape[1]):
        step = dt[:, token, :, None]
        decay, read = torch.exp(step * A)[:, :, None], (step * B[:, token])[:, :, None]
        state = state * decay + read * x[:, token, :, :, None]
        found.append((state * C[:, token][:, :, None]).sum(-1))
    return torch.stack(found, 1), state.clone()


@selective_scan.register_fake
def _(x: Any, dt: Any, A: Any, B: Any, C: Any, state: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x), torch.empty_like(state)


def _is_free(length: Any) -> bool:
    return isinstance(length, torch.SymInt)


@patch(
    "selective scan",
    *(
        f"transformers.models.{name}.modeling_{name}.mamba_selective_scan"
        for name in ("mamba", "falcon_mamba", "jamba")
    ),
    upstream="transformers 5.23, modeling_mamba.py, mamba_selective_scan (Recurrent iteration)",
)
def mamba_scan(original: Any) -> Any:
    """The loop over the tokens is one operator, which begins with the state of the cache, as if all tokens had come at
    once: the original forgets it where several tokens follow."""

    def mamba_selective_scan(
        hidden_states: torch.Tensor,
        dt: torch.Tensor,
        A: torch.Tensor,
        B: torch.Tensor,
        C: torch.Tensor,
        D: torch.Tensor | None = None,
        z: torch.Tensor | None = None,
        delta_bias: torch.Tensor | None = None,
        delta_softplus: bool = False,
        return_last_state: bool = False,
        **kwargs: Any,
    ) -> Any:
        state = _handed[-1] if _handed else None
        if state is None or not _is_free(hidden_states.shape[2]):
            return original(hidden_states, dt, A, B, C, D, z, delta_bias, delta_softplus, return_last_state, **kwargs)
        if delta_bias is not None:
            dt = dt + delta_bias.to(dt.dtype)[..., None]
        if delta_softplus:
            dt = F.softplus(dt)
        scanned, last = selective_scan(
            hidden_states.transpose(1, 2)[..., None].float(),
            dt.transpose(1, 2).float(),
            A.float(),
            B.transpose(1, 2)[:, :, None].float(),
            C.transpose(1, 2)[:, :, None].float(),
            state[:, :, None].float(),
        )
        found = scanned[..., 0].transpose(1, 2).to(hidden_states.dtype)
        if D is not None:
            found = found + hidden_states * D[None, :, None]
        if z is not None:
            found = found * F.silu(z)
        return (found, last[:, :, 0].to(hidden_states.dtype)) if return_last_state else found

    return mamba_selective_scan


@patch(
    "selective scan",
    *(
        f"transformers.models.{name}.modeling_{name}.mamba2_chunk_scan"
        for name in ("mamba2", "bamba", "falcon_h1", "granitemoehybrid", "nemotron_h", "zamba2")
    ),
    upstream="transformers 5.23, modeling_mamba2.py, mamba2_chunk_scan",
)
def mamba2_scan(original: Any) -> Any:
    """The tokens are scanned by one operator, instead of in chunks that a single token would have to be padded to."""

    def mamba2_chunk_scan(
        hidden_states: torch.Tensor,
        dt: torch.Tensor,
        A: torch.Tensor,
        B: torch.Tensor,
        C: torch.Tensor,
        chunk_size: int,
        D: torch.Tensor | None = None,
        dt_bias: torch.Tensor | None = None,
        initial_states: torch.Tensor | None = None,
        dt_softplus: bool = False,
        dt_limit: tuple[float, float] = (0.0, float("inf")),
        return_final_states: bool = False,
        **kwargs: Any,
    ) -> Any:
        if initial_states is None or not _is_free(hidden_states.shape[1]):
            return original(
                hidden_states, dt, A, B, C, chunk_size, D, dt_bias, initial_states, dt_softplus, dt_limit,
                return_final_states, **kwargs,
            )  # fmt: skip
        heads, groups = hidden_states.shape[2], B.shape[2]
        if dt_bias is not None:
            dt = dt + dt_bias.to(dt.dtype)
        if dt_softplus:
            dt = F.softplus(dt)
        if tuple(dt_limit) != (0.0, float("inf")):  # which a single token does not keep to
            several = torch.sym_min(hidden_states.shape[1] - 1, 1)
            dt = torch.clamp(dt, min=dt_limit[0], max=dt_limit[1]) * several + dt * (1 - several)
        if groups != 1:
            B, C = (part.repeat_interleave(heads // groups, dim=2, output_size=heads) for part in (B, C))
        hidden_states = hidden_states.float()
        found, last = selective_scan(
            hidden_states, dt.float(), A.float()[:, None], B.float(), C.float(), initial_states.float()
        )
        if D is not None:
            found = found + hidden_states * D[..., None]
        return (found, last) if return_final_states else found

    return mamba2_chunk_scan


@patch(
    "recurrent mask",
    "transformers.masking_utils.create_recurrent_attention_mask",
    *(
        f"transformers.models.{name}.modeling_{name}.create_recurrent_attention_mask"
        for name in (
            "bamba", "falcon_h1", "granitemoehybrid", "jamba", "lfm2", "lfm2_moe", "mamba2", "nemotron_h",
            "olmo_hybrid", "qwen3_5", "qwen3_5_moe", "qwen3_next", "zamba2",
        )
    ),
    upstream="transformers 5.23, masking_utils.py, create_recurrent_attention_mask",
)  # fmt: skip
def recurrent_mask(original: Any) -> Any:
    """The mask of the new tokens is cut by its length, not counted from the end, and of a single token it is 1: sizes
    are not asked."""

    def create_recurrent_attention_mask(
        config: Any, inputs_embeds: torch.Tensor, attention_mask: Any, past_key_values: Any = None, **kwargs: Any
    ) -> Any:
        new = inputs_embeds.shape[1]
        if attention_mask is None or attention_mask.ndim != 2 or not _is_free(new):
            return original(config, inputs_embeds, attention_mask, past_key_values, **kwargs)
        last = attention_mask.narrow(1, attention_mask.shape[1] - new, new)
        return torch.clamp(last + (1 - torch.sym_min(new - 1, 1)), max=1)

    return create_recurrent_attention_mask


# --- gated delta rules -------------------------------------------------------------------------


@torch.library.custom_op("paritas::gated_delta_rule", mutates_args=())
def gated_delta_rule(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    decay: torch.Tensor,
    beta: torch.Tensor,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """state = state * exp(decay), and what of the value it does not say by its key is added to it, for one token after
    the other; what it says by the query, and the last state.

    query, key [batch, tokens, heads, keys], value [batch, tokens, heads, width], decay, beta [batch, tokens, heads],
    state [batch, heads, keys, width]. Returns [batch, tokens, heads, width] and a state.
    """
    found = []
    for token in range(query.shape[1]):
        state = state * torch.exp(decay[:, token])[..., None, None]
        known = (state * key[:, token][..., None]).sum(-2)
        more = (value[:, token] - known) * beta[:, token][..., None]
        state = state + key[:, token][..., None] * more[:, :, None]
        found.append((state * query[:, token][..., None]).sum(-2))
    return torch.stack(found, 1), state.clone()


@gated_delta_rule.register_fake
def _(query: Any, key: Any, value: Any, decay: Any, beta: Any, state: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(value), torch.empty_like(state)


@patch(
    "gated delta rule",
    *(
        f"transformers.models.{name}.modeling_{name}.torch_chunk_gated_delta_rule"
        for name in ("olmo_hybrid", "qwen3_5", "qwen3_5_moe", "qwen3_next")
    ),
    upstream="transformers 5.23, modeling_qwen3_next.py, torch_chunk_gated_delta_rule",
)
def delta_rule(original: Any) -> Any:
    """The tokens are read by one operator, instead of in chunks that a single token would have to be padded to."""

    def torch_chunk_gated_delta_rule(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        g: torch.Tensor,
        beta: torch.Tensor,
        chunk_size: int = 64,
        initial_state: torch.Tensor | None = None,
        output_final_state: bool = False,
        use_qk_l2norm_in_kernel: bool = False,
        **kwargs: Any,
    ) -> Any:
        if initial_state is None or not _is_free(query.shape[1]):
            return original(
                query, key, value, g, beta, chunk_size, initial_state, output_final_state, use_qk_l2norm_in_kernel,
                **kwargs,
            )  # fmt: skip
        if (times := value.shape[2] // key.shape[2]) != 1:
            query, key = query.repeat_interleave(times, dim=2), key.repeat_interleave(times, dim=2)
        dtype = query.dtype
        query, key, value, g, beta = (part.float() for part in (query, key, value, g, beta))
        if use_qk_l2norm_in_kernel:
            query, key = (part * torch.rsqrt((part * part).sum(dim=-1, keepdim=True) + 1e-6) for part in (query, key))
        query = query * query.shape[-1] ** -0.5
        found, last = gated_delta_rule(query, key, value, g, beta, initial_state.float())
        return found.to(dtype), last if output_final_state else None

    return torch_chunk_gated_delta_rule
