# SPDX-License-Identifier: Apache-2.0
"""The core of drop-ins by itself: a namespace for diffusers, of some fifty lines, has all that a drop-in has."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
import diffusers
import small_diffusers as ours

from paritas.dropin import network

TINY: dict[str, Any] = {
    "sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
}  # fmt: skip

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
T = torch.tensor([7, 11])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("unet")
    diffusers.UNet2DModel(**TINY).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def original(checkpoint: Path) -> Any:
    return diffusers.UNet2DModel.from_pretrained(checkpoint).eval()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ports")


@pytest.fixture(autouse=True)
def cache(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARITAS_CACHE", str(kept))


def _same(got: Any, want: torch.Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(np.asarray(got)), want, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def model(checkpoint: Path, kept: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARITAS_CACHE", str(kept))
        made = ours.UNet2DModel.from_pretrained(checkpoint, engine="openvino")
        made(X, T)
    return made


@torch.no_grad()
def test_it_answers_as_the_original_by_a_port_for_each_way_of_calling(model: Any, original: Any) -> None:
    assert type(model).__name__ == "UNet2DModel" and isinstance(model, diffusers.UNet2DModel)
    found = model(X, T)
    assert type(found) is type(original(X, T))
    _same(found.sample, original(X, T).sample)
    _same(model(X[:, :, :4], T).sample, original(X[:, :, :4], T).sample)
    assert len(model.ports) == 1  # a size is no other way
    (plain,) = model(X, T, return_dict=False)
    _same(plain, original(X, T).sample)
    assert len(model.ports) == 2
    assert all(port.manifest.engine == "openvino" for port in model.ports)
    assert model.ports[0].verify(level="outputs").verdict == "agrees"


@torch.no_grad()
def test_a_second_start_captures_nothing(model: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "capture", lambda *a, **k: pytest.fail("captured again"))
    again = ours.UNet2DModel.from_pretrained(checkpoint, engine="openvino")
    _same(again(X, T).sample, model(X, T).sample)


@torch.no_grad()
def test_other_weights_are_another_port(model: Any, original: Any) -> None:
    changed, want = copy.deepcopy(model), copy.deepcopy(original)
    for one in (changed, want):
        one.conv_out.weight.mul_(2)
    _same(changed(X, T).sample, want(X, T).sample)


def test_tensors_of_the_callers_framework(model: Any, original: Any) -> None:
    found = model(X.numpy(), T.numpy()).sample
    assert isinstance(found, np.ndarray)
    with torch.no_grad():
        _same(found, original(X, T).sample)


def test_what_is_around_the_networks_is_the_originals(model: Any, original: Any) -> None:
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=20)

    def image(unet: Any) -> np.ndarray:
        made = diffusers.DDIMPipeline(unet, scheduler)
        made = ours.attach(made, engine="openvino") if unet is model else made
        made.set_progress_bar_config(disable=True)
        noise = torch.Generator().manual_seed(3)
        return made(num_inference_steps=3, generator=noise, output_type="np").images

    np.testing.assert_allclose(image(model), image(original), atol=1e-4)


def test_what_only_pytorch_can_answer_it_answers(model: Any, original: Any, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []
    handle = model.mid_block.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad(), caplog.at_level(logging.WARNING, "paritas.dropin"):
        _same(model(X, T).sample, original(X, T).sample)
    handle.remove()
    assert seen and "mid_block has hooks" in caplog.text
    assert type(model.in_pytorch()) is diffusers.UNet2DModel
