# SPDX-License-Identifier: Apache-2.0
"""A vision tower that takes the patches of all images one after another, as two networks without a loop over images.

Its forward reads the sizes of images out of `grid_thw`: where each patch lies, and between which attention is. What
follows from the sizes alone is computed beside the graph, by transformers' own functions (`of_grids`), and comes in as
tensors, under the names of optimum-intel's files. The tower's own code computes all the rest.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch

from paritas.capture.forward import holds_each
from paritas.errors import InputsNeeded, first_line

#: The name of an argument of towers of this kind: int64 [images, 3], frames, rows and columns of patches.
GRID = "grid_thw"

#: What the tower computes before its blocks, each by a module of that name. `_TABLE`, which not all have: a table of a
#: square of places, out of which those of an image's size are mixed.
_PATCHES, _ANGLES, _TABLE = "patch_embed", "rotary_pos_emb", "pos_embed"

#: The name of an attention that looks at patches of all images at once, as implementations of that kind do ("flash").
_ATTENTION = "flash_by_mask"

#: What the merger takes, by optimum-intel's names.
HIDDEN, MASK, ANGLES = "hidden_states", "attention_mask", "rotary_pos_emb"
WINDOW_MASK, WINDOWS = "window_attention_mask", "window_index"

#: And what it returns: what stands in the places of images, and what is added behind layers of the language model.
TOKENS, ADDED = "last_hidden_state", "deepstack_feature_lists"


def tower_of(model: torch.nn.Module) -> Any:
    """The module inside `model` that is such a tower; None if there is none."""
    for module in model.modules():
        children = dict(module.named_children())
        if {_PATCHES, _ANGLES} <= children.keys() and GRID in inspect.signature(module.forward).parameters:
            return module
    return None


def table_of(tower: Any) -> torch.nn.Module | None:
    """What looks places up, of a tower that has such a table: int64 [n, patches] becomes float [n, patches, width]."""
    found = getattr(tower, _TABLE, None)
    return found if isinstance(found, torch.nn.Embedding) and hasattr(tower, "num_grid_per_side") else None


def has_windows(tower: Any) -> bool:
    """Whether some of its blocks attend inside windows of an image only."""
    return bool(getattr(tower.config, "window_size", None))


class PatchEmbeddings(torch.nn.Module):
    """Of hidden_states float [patches, values of one], as processors make pixel_values: float [patches, width]."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.patch_embed = getattr(tower, _PATCHES)
        self.values = _values(tower)

    def forward(self, hidden_states: torch.Tensor) -> dict[str, torch.Tensor]:
        # As wide as a patch is: else a row could be several patches, or a part of one.
        hidden_states = hidden_states.reshape(hidden_states.shape[0], self.values)
        return {"last_hidden_state": self.patch_embed(hidden_states)}


class Merger(torch.nn.Module):
    """The tower behind the embeddings of its patches and of their places.

    hidden_states float [patches, width], attention_mask float [1, patches, patches], 0 inside a frame and -inf outside,
    rotary_pos_emb float [patches, half of a head's width]. Returns what stands in the places of images, float [tokens,
    width], and what is added behind layers of the language model, float [layers, tokens, width], where something is.
    """

    def __init__(self, tower: Any) -> None:
        super().__init__()
        original: Any = type(tower)
        made = original.__new__(original)
        made.__dict__ = {**tower.__dict__, "_modules": {**tower._modules}}
        scaling = float(getattr(getattr(tower, _ANGLES), "attention_scaling", 1.0))
        made._modules |= {_PATCHES: torch.nn.Identity(), _ANGLES: _Given(scaling)}
        self.has_table = table_of(tower) is not None
        if self.has_table:
            made._modules[_TABLE] = _Nothing()
        self.tower = made

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor, rotary_pos_emb: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        return self._merged(hidden_states, position_ids=rotary_pos_emb, cu_seqlens=attention_mask)

    def _merged(self, hidden_states: torch.Tensor, **given: Any) -> dict[str, torch.Tensor]:
        # Each is taken by the tower where it would compute it of the grid; borders of images are masks here.
        if self.has_table:
            given |= {"interp_indices": hidden_states, "interp_weights": hidden_states.new_zeros(1, 1)}
        with _attention_by_mask(self.tower.config):
            out = self.tower(hidden_states, **{GRID: None}, max_seqlen=1, **given)
        return dict(zip((TOKENS, ADDED), _returned(out), strict=False))


class WindowMerger(Merger):
    """As `Merger`, of a tower with windows: window_attention_mask as the other one, of patches in the order of windows,
    and window_index int64 [tokens], that order."""

    def forward(  # type: ignore[override]
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        window_attention_mask: torch.Tensor,
        window_index: torch.Tensor,
        rotary_pos_emb: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        tokens, patches = window_index.shape[0], window_index.shape[0] * self.tower.spatial_merge_size**2
        holds_each(window_index, tokens)
        # The same tensors: so that all sizes are said by one.
        hidden_states = hidden_states.reshape(patches, hidden_states.shape[1])
        rotary_pos_emb = rotary_pos_emb.reshape(patches, rotary_pos_emb.shape[1])
        return self._merged(
            hidden_states,
            position_ids=rotary_pos_emb,
            cu_seqlens=attention_mask,
            cu_window_seqlens=window_attention_mask,
            window_index=window_index,
            max_window_seqlen=1,
        )


class _Given(torch.nn.Module):
    """In the place of what turns positions into cosines and sines: it is given the angles."""

    def __init__(self, scaling: float) -> None:
        super().__init__()
        self.scaling = scaling

    def forward(self, hidden_states: torch.Tensor, angles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        both = torch.cat((angles, angles), dim=-1)
        return both.cos() * self.scaling, both.sin() * self.scaling


class _Nothing(torch.nn.Module):
    """In the place of the table: its part is in the hidden states already."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states.new_zeros(1, 1, 1)


def _by_mask(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention among the patches of all images, [1, heads, patches, width of a head].

    cu_seq_lens_q: the mask, in the place of where images begin.
    """
    mask = cu_seq_lens_q[:, None].to(query.dtype)
    found = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return found.transpose(1, 2), None


@contextlib.contextmanager
def _attention_by_mask(config: Any) -> Iterator[None]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _by_mask)
    before, config._attn_implementation_internal = config._attn_implementation_internal, _ATTENTION
    try:
        yield
    finally:
        config._attn_implementation_internal = before


def merger(tower: Any) -> Merger:
    return WindowMerger(tower) if has_windows(tower) else Merger(tower)


def of_grids(config: Any, rotary: Any, grid: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a merger takes beside its hidden states for images of these sizes, in its order.

    config: the tower's. rotary: its module that holds frequencies. grid: int64 [images, 3].
    """
    from transformers import vision_utils

    merged = int(config.spatial_merge_size)
    borders = vision_utils.get_vision_cu_seqlens(grid)
    places = vision_utils.get_vision_position_ids(grid, merged)
    found = {MASK: _apart(borders)}
    if getattr(config, "window_size", None):
        index, windows = vision_utils.get_vision_window_index(grid, merged, config.window_size, config.patch_size)
        found |= {WINDOW_MASK: _apart(windows), WINDOWS: index}
    return {**found, ANGLES: (places[..., None].float() * rotary.inv_freq.float()).flatten(1)}


def taps_of_grids(tower: Any, grid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which places of its table are mixed for each patch of images of these sizes, and how much of each: int64 and
    float [places, patches]."""
    from transformers import vision_utils

    indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(
        grid,
        num_grid_per_side=tower.num_grid_per_side,
        mode=tower.interpolation_mode,
        align_corners=tower.interpolation_align_corners,
        spatial_merge_size=tower.config.spatial_merge_size,
    )
    return indices.T.contiguous(), weights.T.contiguous()


def with_places(hidden: torch.Tensor, looked_up: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Embeddings of patches float [patches, width], with those of their places."""
    return hidden + (looked_up * weights[..., None]).sum(0).to(hidden.dtype)


def _apart(borders: torch.Tensor) -> torch.Tensor:
    """float [1, n, n]: 0 between places of one stretch, -inf between those of two. borders: where stretches begin."""
    n = int(borders[-1])
    stretch = torch.bucketize(torch.arange(n), borders.to(torch.int64), right=True)
    return torch.zeros(1, n, n).masked_fill(stretch[:, None] != stretch, -torch.inf)


def example_of(tower: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(patches, grid) of two images of different sizes and of a film, seeded."""
    side = int(tower.config.spatial_merge_size)
    grid = torch.tensor([[1, 4 * side, 6 * side], [1, 2 * side, 2 * side], [2, 2 * side, 4 * side]])
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(int(grid.prod(-1).sum()), _values(tower), generator=generator)
    return patches.to(next(tower.parameters()).dtype), grid


def _values(tower: Any) -> int:
    """Of how many values a patch is."""
    return int(next(getattr(tower, _PATCHES).parameters())[0].numel())


def example_for_merger(tower: Any) -> dict[str, torch.Tensor]:
    """What a merger is captured with. Raises `InputsNeeded` for a tower that is not what its merger makes of it."""
    name = type(tower).__name__
    advice = "Generate with paritas.transformers."
    patches, grid = example_of(tower)
    with torch.no_grad():
        try:
            want = tower(patches, grid)
            hidden = getattr(tower, _PATCHES)(patches)
            if (table := table_of(tower)) is not None:
                indices, weights = taps_of_grids(tower, grid)
                hidden = with_places(hidden, table(indices), weights)
            given = {HIDDEN: hidden, **of_grids(tower.config, getattr(tower, _ANGLES), grid)}
            found = merger(tower).eval()(**given)
        except Exception as error:
            raise InputsNeeded(
                f"{name} does not take apart into patches and a merger: {first_line(error)}. {advice}"
            ) from error
    for one, other in zip(_returned(want), found.values(), strict=True):
        if other.shape != one.shape or not torch.allclose(
            other.float(), one.float(), rtol=1e-2, atol=1e-3, equal_nan=True
        ):
            raise InputsNeeded(f"{name} looks at more than the patches of one frame and their places. {advice}")
    return given


def _returned(out: Any) -> list[torch.Tensor]:
    """What a merger returns, as the tower says it."""
    added = getattr(out, "deepstack_features", None)
    return [out.pooler_output, *([torch.stack(list(added))] if added else [])]
