# SPDX-License-Identifier: Apache-2.0
"""Questions about values that change nothing but the way: left out, or answered for every value."""

from __future__ import annotations

from typing import Any

import torch

from paritas.capture.patches import numbers, patch


@patch(
    "fsmt",
    "transformers.models.fsmt.modeling_fsmt.make_padding_mask",
    upstream="transformers 5.23, modeling_fsmt.py, make_padding_mask",
)
def padding_mask_always(original: Any) -> Any:
    """A mask without padding becomes None if no value is padding; a mask that hides nothing computes the same."""

    def make_padding_mask(input_ids: torch.Tensor, padding_idx: int = 1) -> torch.Tensor:
        return input_ids.eq(padding_idx)

    return make_padding_mask


for _family, _class in (("mimi", "MimiConv1d"), ("encodec", "EncodecConv1d")):
    numbers(
        _family,
        f"transformers.models.{_family}.modeling_{_family}.{_class}",
        "stride",
        "kernel_size",
        "padding_total",
        "padding_left",
        "padding_right",
        why="The sizes of a convolution are tensors there, and padding by tensors depends on their values.",
        upstream=f"transformers 5.23, modeling_{_family}.py, {_class}.__init__ (nn.Buffer)",
    )


@patch(
    "encodec",
    "transformers.models.mimi.modeling_mimi.MimiConv1d._get_extra_padding_for_conv1d",
    "transformers.models.encodec.modeling_encodec.EncodecConv1d._get_extra_padding_for_conv1d",
    upstream="transformers 5.23, modeling_encodec.py, EncodecConv1d._get_extra_padding_for_conv1d",
)
def whole_padding(original: Any) -> Any:
    """The padding to whole frames is computed in tensors of floats; whole numbers give the same, and may be sizes."""

    def extra_padding(self: Any, hidden_states: torch.Tensor) -> Any:
        if isinstance(self.stride, torch.Tensor):
            return original(self, hidden_states)
        return -hidden_states.shape[-1] % self.stride if self.stride > 1 else 0

    return extra_padding


numbers(
    "eomt",
    "transformers.models.eomt.modeling_eomt.EomtForUniversalSegmentation",
    "attn_mask_probs",
    why="Whether a layer masks its attention is read from a buffer, which training alone changes.",
    upstream="transformers 5.23, modeling_eomt.py, EomtForUniversalSegmentation.forward (attn_mask_probs > 0)",
)


@patch(
    "informer",
    "transformers.models.informer.modeling_informer.create_bidirectional_mask",
    upstream="transformers 5.23, modeling_informer.py, InformerEncoder.forward (the mask is not distilled)",
)
def no_mask_without_padding(original: Any) -> Any:
    """Eagerly a mask that hides nothing is left out; traced it is kept, and has the wrong length after distilling."""

    def create_bidirectional_mask(*args: Any, **kwargs: Any) -> Any:
        given = kwargs.get("attention_mask", args[2] if len(args) > 2 else None)
        return None if given is None else original(*args, **kwargs)

    return create_bidirectional_mask


@patch(
    "distributions",
    "torch.distributions.distribution.Distribution._validate_args",
    upstream="torch 2.13, torch/distributions/distribution.py, Distribution.__init__ (validate_args)",
)
def no_validation_of_parameters(original: Any) -> Any:
    """Whether a distribution's parameters are valid is asked of their values; it changes no number."""
    return False


@patch(
    "gated delta rule",
    "transformers.models.qwen3_next.modeling_qwen3_next.is_torchdynamo_exporting",
    "transformers.models.qwen3_5.modeling_qwen3_5.is_torchdynamo_exporting",
    "transformers.models.qwen3_5_moe.modeling_qwen3_5_moe.is_torchdynamo_exporting",
    "transformers.models.qwen4_exp.modeling_qwen4_exp.is_torchdynamo_exporting",
    "transformers.models.olmo_hybrid.modeling_olmo_hybrid.is_torchdynamo_exporting",
    upstream="transformers 5.23, modeling_qwen3_next.py, torch_chunk_gated_delta_rule",
)
def solved_as_in_eager(original: Any) -> Any:
    """For exporters a triangular system is solved by a loop over its rows, 500 nodes a layer; here as in eager mode."""
    return lambda: False
