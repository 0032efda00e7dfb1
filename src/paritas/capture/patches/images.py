# SPDX-License-Identifier: Apache-2.0
"""Image patches that are chosen by their values: weights and masks instead of lists of indices."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

from paritas.capture.patches import patch

_UDOP = "transformers.models.udop.modeling_udop"


@patch(
    "udop",
    f"{_UDOP}.combine_image_text_embeddings",
    upstream="transformers 5.23, modeling_udop.py, combine_image_text_embeddings (patch_inds[rows, cols])",
)
def udop_patches(original: Any) -> Any:
    """Patches under a word are dropped by lists of indices made of tensors; a stable sort moves the others forward."""

    def combine(
        image_embeddings: torch.Tensor,
        inputs_embeds: torch.Tensor,
        bbox: torch.Tensor,
        visual_bbox: torch.Tensor | None,
        attention_mask: torch.Tensor | None = None,
        num_patches: int = 14,
        max_len: int = 0,
        image_size: int = 224,
        patch_size: int = 16,
    ) -> Any:
        def cell(low: int) -> torch.Tensor:
            centre = (bbox[:, :, low] + bbox[:, :, low + 2]) / 2.0 * num_patches
            return torch.clip(torch.floor(centre).long(), 0, num_patches - 1)

        points = cell(0) + cell(1) * num_patches
        bbox = bbox.to(torch.float64)
        mean = bbox.mean(-1)
        nowhere = (mean == 0.0) | (mean == 1.0)
        width = image_embeddings.size(-1)
        under = torch.gather(image_embeddings, 1, points.unsqueeze(-1).repeat(1, 1, width))
        inputs_embeds = inputs_embeds + under.masked_fill(nowhere.unsqueeze(-1), 0.0)

        free = torch.ones_like(image_embeddings[:, :, 0]).scatter(1, points, 0.0) > 0
        # The free patches in their order, then the others, which count as padding.
        order = torch.argsort((~free).long(), dim=1, stable=True)
        kept = torch.gather(free, 1, order)
        if visual_bbox is None:
            module = sys.modules[_UDOP]
            table = module.get_visual_bbox(image_size=image_size, patch_size=patch_size)
            visual_bbox = table.unsqueeze(0).repeat(image_embeddings.size(0), 1, 1).to(bbox.device)

        count = image_embeddings.size(1) if max_len == 0 else max_len - inputs_embeds.size(1)

        def fitted(values: torch.Tensor) -> torch.Tensor:
            missing = count - values.size(1)
            if missing > 0:
                return nn.functional.pad(values, (0,) * (2 * values.dim() - 3) + (missing,))
            return values[:, :count]

        def chosen(values: torch.Tensor) -> torch.Tensor:
            index = order.unsqueeze(-1).expand(-1, -1, values.size(-1))
            return fitted(torch.gather(values, 1, index).masked_fill(~kept.unsqueeze(-1), 0.0))

        inputs_embeds = torch.cat([inputs_embeds, chosen(image_embeddings)], 1)
        bbox = torch.cat([bbox, chosen(visual_bbox).to(bbox.dtype)], 1)
        if attention_mask is not None:
            attention_mask = torch.cat([attention_mask, fitted(kept.to(attention_mask.dtype))], 1)
        return inputs_embeds, bbox, attention_mask

    return combine


def _resampled(size: torch.Tensor, places: int, rows: int) -> torch.Tensor:
    """[batch, places, rows]: linear interpolation of `rows` values at `size` places, corners aligned; 0 behind."""
    at = torch.arange(places, device=size.device)
    step = (rows - 1) / torch.clamp(size - 1, min=1).to(torch.float32)
    position = at[None, :] * step[:, None]
    distance = (position[:, :, None] - torch.arange(rows, device=size.device)).abs()
    inside = (at[None, :] < size[:, None])[:, :, None]
    return torch.clamp(1 - distance, min=0) * inside


@patch(
    "vilt",
    "transformers.models.vilt.modeling_vilt.ViltEmbeddings.visual_embed",
    upstream="transformers 5.23, modeling_vilt.py, ViltEmbeddings.visual_embed (multinomial, nonzero)",
)
def vilt_patches(original: Any) -> Any:
    """The original shuffles an image's patches at random and loops over sizes read from the mask; here they keep their
    order, and the padding stays behind the mask. Attention does not depend on the order."""

    def visual_embed(
        self: Any, pixel_values: torch.Tensor, pixel_mask: torch.Tensor, max_image_length: Any = 200
    ) -> Any:
        if isinstance(max_image_length, int) and max_image_length >= 0:
            return original(self, pixel_values, pixel_mask, max_image_length)
        found = self.patch_embeddings(pixel_values)
        batch, channels, height, width = found.shape
        mask = nn.functional.interpolate(pixel_mask[:, None, :, :].float(), size=(height, width)).long()
        rows, columns = mask[:, 0].sum(dim=1)[:, 0], mask[:, 0].sum(dim=2)[:, 0]
        side = self.config.image_size // self.config.patch_size
        table = self.position_embeddings[:, 1:, :].view(side, side, channels)
        down, across = _resampled(rows, height, side), _resampled(columns, width, side)
        positions = torch.einsum("bhp,bwq,pqc->bhwc", down, across, table).flatten(1, 2)
        first = self.position_embeddings[:, :1, :].expand(batch, -1, -1)
        tokens = torch.cat((self.cls_token.expand(batch, -1, -1), found.flatten(2).transpose(1, 2)), dim=1)
        tokens = self.dropout(tokens + torch.cat((first, positions), dim=1))
        seen = torch.cat([torch.ones_like(mask[:, 0, 0, :1]), mask.flatten(1)], dim=1)
        places = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), dim=-1).to(
            mask.device
        )
        return tokens, seen, (places.flatten(0, 1).expand(batch, -1, -1), (height, width))

    return visual_embed
