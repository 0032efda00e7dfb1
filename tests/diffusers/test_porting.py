# SPDX-License-Identifier: Apache-2.0
"""Pipelines of diffusers with their networks on an engine: the same picture from the same seed, and never silent."""

from __future__ import annotations

import contextlib
import copy
import logging
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

pytest.importorskip("diffusers")
import diffusers
import tiny_pipelines
from tiny_pipelines import ENGINES

import paritas.diffusers as ours
from paritas.diffusers.porting import networks
from paritas.errors import InputError


def _picture(pipeline: Any, **more: Any) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(3)
    call = {"prompt": "a red dog", "num_inference_steps": 2, "generator": noise, "output_type": "np", **more}
    return pipeline(**call).images


def _same(got: Any, want: Any) -> None:
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), atol=1e-4)


@pytest.fixture(scope="module")
def original() -> Any:
    return tiny_pipelines.stable_diffusion()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ports")


@pytest.fixture(autouse=True)
def cache(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARITAS_CACHE", str(kept))


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return ours.port(tiny_pipelines.stable_diffusion(), engine="openvino")


def test_the_same_picture_by_one_port_for_each_network(pipeline: Any, original: Any) -> None:
    assert type(pipeline) is diffusers.StableDiffusionPipeline and isinstance(pipeline, ours.StableDiffusionPipeline)
    _same(_picture(pipeline), _picture(original))
    ports = {name: [p.manifest.source.model_class for p in n.ports] for name, n in networks(pipeline).items()}
    assert {name: [one.rpartition(".")[2] for one in found] for name, found in ports.items()} == {
        "vae": ["decode"],
        "text_encoder": ["CLIPTextModel"],
        "unet": ["UNet2DConditionModel"],
    }


def test_networks_are_still_instances_of_their_classes(pipeline: Any, original: Any) -> None:
    for name, network in networks(pipeline).items():
        theirs = networks(original)[name]
        assert isinstance(network, type(theirs)) and type(network).__name__ == type(theirs).__name__
        assert network.config.to_dict() == theirs.config.to_dict() if name == "text_encoder" else True
        assert (network.dtype, network.device) == (theirs.dtype, theirs.device)


@torch.no_grad()
def test_an_autoencoder_returns_moments_and_torch_draws(pipeline: Any, original: Any) -> None:
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    found, wanted = pipeline.vae.encode(x).latent_dist, original.vae.encode(x).latent_dist
    assert type(found) is type(wanted)
    _same(found.mode(), wanted.mode())
    draws = [one.sample(torch.Generator().manual_seed(2)) for one in (found, wanted)]
    _same(*draws)


def test_another_pipeline_of_the_same_networks(pipeline: Any, original: Any) -> None:
    image = PIL.Image.new("RGB", (16, 16), (200, 30, 60))
    made = ours.StableDiffusionImg2ImgPipeline.from_pipe(pipeline)
    assert type(made) is diffusers.StableDiffusionImg2ImgPipeline and made.unet is pipeline.unet
    assert made.unet.engine == "openvino"
    theirs = diffusers.StableDiffusionImg2ImgPipeline.from_pipe(original)
    _same(_picture(made, image=image, strength=0.9), _picture(theirs, image=image, strength=0.9))


def test_classes_by_name_read_a_checkpoint(tmp_path: Path, original: Any) -> None:
    original.save_pretrained(tmp_path)
    for cls in (ours.DiffusionPipeline, ours.AutoPipelineForText2Image, ours.StableDiffusionPipeline):
        read = cls.from_pretrained(tmp_path, engine="openvino")
        assert type(read) is diffusers.StableDiffusionPipeline
        assert {network.engine for network in networks(read).values()} == {"openvino"}
    _same(_picture(read), _picture(original))
    assert ours.UNet2DConditionModel.from_pretrained(tmp_path / "unet", engine="openvino").engine == "openvino"


def test_a_class_of_ones_own_that_is_derived_from_ours(original: Any) -> None:
    class Darker(ours.StableDiffusionPipeline):  # type: ignore[misc]
        @torch.no_grad()
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            out = super().__call__(*args, **kwargs)
            out.images = out.images / 2
            return out

    made = Darker(**tiny_pipelines.parts(), requires_safety_checker=False, engine="openvino")
    assert type(made) is Darker and made.unet.engine == "openvino" and not isinstance(original, Darker)
    _same(_picture(made), _picture(original) / 2)
    assert isinstance(Darker.from_pipe(made), Darker)


def test_an_engine_for_each_network() -> None:
    made = ours.port(
        tiny_pipelines.stable_diffusion(), engine={"unet": "openvino", "vae": None, "text_encoder": "torch"}
    )
    assert [getattr(n, "engine", "none") for n in networks(made).values()] == ["none", "torch", "openvino"]
    with pytest.raises(InputError, match=r"engine names unnet, and the networks are vae, text_encoder, unet"):
        ours.port(tiny_pipelines.stable_diffusion(), engine={"unnet": "openvino"})


@pytest.mark.parametrize("engine", ENGINES)
def test_tiles_are_pythons_and_what_they_call_is_the_engines(engine: str) -> None:
    pair = [tiny_pipelines.stable_diffusion(), ours.port(tiny_pipelines.stable_diffusion(), engine=engine)]
    for one in pair:
        one.vae.tile_sample_min_size, one.vae.tile_latent_min_size = 8, 4
        one.vae.enable_tiling()
    _same(_picture(pair[1]), _picture(pair[0]))
    names = {port.manifest.source.model_class.rpartition(".")[2] for port in pair[1].vae.ports}
    assert names == {"Decoder", "Conv2d"}


def test_a_registry_without_hooks_makes_no_other_port(pipeline: Any) -> None:
    """Pipelines that name their calls for a cache leave one on the network, whether a cache is used or not."""
    want = _picture(pipeline)
    before = pipeline.unet.ports
    diffusers.hooks.HookRegistry.check_if_exists_or_initialize(pipeline.unet)
    _same(_picture(pipeline), want)
    assert pipeline.unet.ports == before


def test_changed_weights_change_the_picture(pipeline: Any, original: Any) -> None:
    changed, want = copy.deepcopy(pipeline.vae), copy.deepcopy(original.vae)
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for one in (changed, want):
            one.post_quant_conv.weight.mul_(1.5)
        _same(changed.decode(z).sample, want.decode(z).sample)
        assert np.abs(pipeline.vae.decode(z).sample - want.decode(z).sample).max() > 1e-3


@pytest.mark.parametrize("engine", ENGINES)
@torch.no_grad()
def test_no_network_is_bypassed(engine: str) -> None:
    """One after another, the weights of each are changed by 1 %, and the picture with them, as PyTorch's."""
    theirs, mine = tiny_pipelines.stable_diffusion(), ours.port(tiny_pipelines.stable_diffusion(), engine=engine)
    before = _picture(mine)
    for name in networks(mine):
        for pipeline in (theirs, mine):
            noise = torch.Generator().manual_seed(1)
            for weight in networks(pipeline)[name].parameters():
                weight.mul_(1 + 0.01 * torch.randn(weight.shape, generator=noise).sign())
        after = _picture(mine)
        _same(after, _picture(theirs))
        assert np.abs(after - before).max() > 1e-3, name
        before = after


def test_gradients_are_pytorchs(pipeline: Any, original: Any, caplog: pytest.LogCaptureFixture) -> None:
    z = torch.randn(1, 4, 8, 8, requires_grad=True)
    with caplog.at_level(logging.WARNING, "paritas.diffusers"), torch.enable_grad():
        (found,) = torch.autograd.grad(pipeline.vae.decode(z).sample.sum(), z)
        (want,) = torch.autograd.grad(original.vae.decode(z).sample.sum(), z)
    _same(found, want)
    assert "AutoencoderKL.decode: PyTorch computes, since a gradient by z is asked for" in caplog.text


class _Storing:
    """A processor of attention that hands what it sees to a store, as pipelines do that edit by maps of attention."""

    def __init__(self, store: Any) -> None:
        self.store = store

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.store.seen["maps"].append(x)
        return x


class _Attending(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.processor = torch.nn.Linear(4, 4), None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.inner(x)
        return self.processor(y) if self.processor is not None else y


@torch.no_grad()
def test_what_a_processor_hands_to_a_store_is_there(caplog: pytest.LogCaptureFixture) -> None:
    from types import SimpleNamespace

    from paritas.diffusers.networks import attach

    model, x, store = _Attending().eval(), torch.randn(2, 4), SimpleNamespace(seen={"maps": []})
    want = model(x)
    model.processor = _Storing(store)
    with caplog.at_level(logging.WARNING, "paritas.diffusers"):
        _same(attach(model, engine="openvino")(x), want)
    _same(store.seen["maps"][0], want)
    assert len(store.seen["maps"]) == 1 and "leaves processor.store.seen.maps.0 for somebody to read" in caplog.text


@torch.no_grad()
def test_a_forward_that_hands_on_what_it_sees_is_called_in_every_call() -> None:
    """As pipelines put into attention for one call: what it hands on is there, and what it takes is taken once."""
    from paritas.diffusers.networks import attach

    found: list[list[torch.Tensor]] = []
    model = _Attending().eval()
    for one in (copy.deepcopy(model), attach(model, engine="openvino")):
        seen: list[torch.Tensor] = []
        for step in range(3):
            seen += [one(torch.full((2, 4), 0.5))]
            with _handing_on(one, seen, [torch.full((2, 4), float(step))]) as given:
                seen += [one(torch.full((2, 4), float(step)))]
            assert given == []
        found.append(seen)
    assert len(found[0]) == len(found[1]) == 9
    for got, want in zip(found[1], found[0], strict=True):
        _same(got, want)
    ports = [port.manifest.source.model_class.rpartition(".")[2] for port in model.ports]
    assert ports == ["_Attending", "Linear"]


@contextlib.contextmanager
def _handing_on(model: Any, seen: list[torch.Tensor], given: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    own, model.inner.bank = model.inner.forward, []

    def forward(self: Any, x: torch.Tensor) -> Any:
        seen.append(x)
        self.bank.append(x)  # which is no change of the model
        return own(x) + given.pop(0)

    model.inner.forward = types.MethodType(forward, model.inner)
    yield given
    assert len(model.inner.bank) == 1
    model.inner.forward = own
    del model.inner.bank
