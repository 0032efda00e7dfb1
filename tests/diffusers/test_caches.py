# SPDX-License-Identifier: Apache-2.0
"""Caches of keys and values that pipelines hand from one call of a network to the next: one graph, and filled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
from diffusers.models.transformers import transformer_flux2, transformer_glm_image
from tiny_pipelines import ENGINES

from paritas.capture import capture
from paritas.diffusers import caches
from paritas.diffusers.networks import attach
from paritas.errors import WritesArguments


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _glm() -> tuple[Any, Callable[[Any], list[Any]]]:
    sizes = {"in_channels": 4, "out_channels": 4, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2}
    more = {"text_embed_dim": 8, "time_embed_dim": 16, "condition_dim": 4, "prior_vq_quantizer_codebook_size": 16}
    model = transformer_glm_image.GlmImageTransformer2DModel(**sizes, **more)

    def calls(model: Any) -> list[Any]:
        cache = transformer_glm_image.GlmImageKVCache(num_layers=2)
        out = []
        for mode, sizes in (("write", 4), ("write", 4), ("read", 8), ("skip", 8), ("read", 8)):
            cache.set_mode(mode)
            out.append(
                model(
                    hidden_states=_noise(1, 4, sizes, sizes),
                    encoder_hidden_states=_noise(1, 3, 8, seed=1),
                    prior_token_id=torch.arange((sizes // 2) ** 2)[None] % 16,
                    prior_token_drop=torch.zeros(1, (sizes // 2) ** 2, dtype=torch.bool),
                    timestep=torch.tensor([500.0]),
                    target_size=torch.tensor([[32.0, 32.0]]),
                    crop_coords=torch.tensor([[0.0, 0.0]]),
                    kv_caches=cache,
                    return_dict=False,
                )[0]
            )
        return [*out, *(tensor for layer in cache.caches for tensor in (*layer.k_caches, *layer.v_caches))]

    return model, calls


def _flux2() -> tuple[Any, Callable[[Any], list[Any]]]:
    sizes = {"in_channels": 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16}
    more: dict[str, Any] = {"num_attention_heads": 2, "joint_attention_dim": 8, "timestep_guidance_channels": 16}
    model = transformer_flux2.Flux2Transformer2DModel(
        **sizes, **more, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False
    )
    for block in model.transformer_blocks:
        block.attn.set_processor(transformer_flux2.Flux2KVAttnProcessor())
    for block in model.single_transformer_blocks:
        block.attn.set_processor(transformer_flux2.Flux2KVParallelSelfAttnProcessor())

    def calls(model: Any) -> list[Any]:
        def call(tokens: int, **more: Any) -> Any:
            ids = torch.arange(tokens * 4.0).reshape(1, tokens, 4) % 5
            texts = {"encoder_hidden_states": _noise(1, 3, 8, seed=1), "txt_ids": torch.zeros(1, 3, 4)}
            image = {"hidden_states": _noise(1, tokens, 4), "img_ids": ids, "timestep": torch.tensor([0.5])}
            return model(**image, **texts, return_dict=False, **more)

        first, cache = call(6, kv_cache_mode="extract", num_ref_tokens=2)
        assert type(cache) is transformer_flux2.Flux2KVCache
        seconds = [call(4, kv_cache=cache, kv_cache_mode="cached")[0] for _ in range(2)]
        return [first, *seconds, cache.get_double(0).k_ref, cache.get_single(0).v_ref]

    return model, calls


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("made", [_glm, _flux2])
@torch.no_grad()
def test_a_cache_is_filled_and_read_by_graphs(made: Any, engine: str, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model, calls = made()
    want = calls(model.eval())
    ported = attach(model, engine=engine)
    with caplog.at_level(logging.WARNING, "paritas.diffusers"):
        got = calls(ported)
    assert not caplog.records
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    names = {port.manifest.source.model_class.rpartition(".")[2] for port in ported.ports}
    assert names == {f"{type(model).__name__}WithCaches"}


def test_an_object_keeps_its_identity_and_what_was_not_touched() -> None:
    cache = transformer_flux2.Flux2KVCache(1, 2)
    layer, kept = cache.single_block_caches[1], torch.zeros(2)
    layer.store(kept, torch.ones(2))
    known: dict[int, Any] = {}
    inside = caches._built(caches.taken_apart(cache), "", known)
    inside.get_single(1).v_ref = torch.full((2,), 3.0)
    inside.num_ref_tokens = 7
    caches.fill(cache, caches._apart(inside, "", known))
    assert cache.single_block_caches[1] is layer and layer.k_ref is kept
    assert cache.num_ref_tokens == 7 and layer.v_ref.tolist() == [3.0, 3.0]
    assert cache.double_block_caches[0].k_ref is None


class _Counting(torch.nn.Module):
    """Writes into what it is given, as causal autoencoders and transformers of videos do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, seen: list[Any], cache: dict[str, Any], flags: dict[str, Any]) -> torch.Tensor:
        y: torch.Tensor = self.inner(x)
        if seen[0] is not None:
            y = y + seen[0] + cache["all"][:1, flags["filled"] - 1]
        seen[0] = x
        cache["all"][:, flags["filled"]] = y
        flags["filled"] += 1
        return y


@pytest.mark.parametrize("engine", ENGINES)
@torch.no_grad()
def test_lists_and_dictionaries_are_written_into(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    model = _Counting().eval()
    with pytest.raises(WritesArguments, match="_Counting puts other things into the lists that it is given as seen"):
        capture(
            model, {"x": _noise(2, 4), "seen": [None], "cache": {"all": torch.zeros(2, 3, 4)}, "flags": {"filled": 0}}
        )
    found = []
    for one in (model, attach(_Counting().eval(), engine=engine)):
        one.load_state_dict(model.state_dict())
        seen: list[Any] = [None]
        kept, flags = torch.zeros(2, 3, 4), {"filled": 0}
        cache = {"all": kept}
        with caplog.at_level(logging.WARNING, "paritas.diffusers"):
            outs = [one(_noise(2, 4, seed=seed), seen, cache, flags) for seed in range(3)]
        assert cache["all"] is kept and flags == {"filled": 3}
        found.append([*outs, seen[0], kept])
    for got, want in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
    assert not caplog.records
