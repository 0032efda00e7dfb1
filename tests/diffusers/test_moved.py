# SPDX-License-Identifier: Apache-2.0
"""Custom pipelines of an older diffusers or transformers, read as if nothing had moved; what is gone stays so."""

from __future__ import annotations

import ast
import importlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
import diffusers
import tiny_pipelines
import transformers

import paritas.diffusers as ours
from paritas.diffusers import moved

#: A pipeline as they were written in 2023: it takes the last but one layer of the text encoder.
OLD = """
import torch
from transformers import CLIPFeatureExtractor, CLIPTextModel, CLIPTokenizer

from diffusers import DiffusionPipeline
from diffusers.models.unet_2d_condition import UNet2DConditionModel
from diffusers.models import AutoencoderKL
from diffusers.pipelines.unclip import UnCLIPTextProjModel
from diffusers.utils import logging, randn_tensor
import diffusers.models.vae as autoencoders


class SkippingPipeline(DiffusionPipeline):
    def __init__(self, vae: AutoencoderKL, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer,
                 unet: UNet2DConditionModel, scheduler):
        super().__init__()
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(self, prompt, generator):
        from diffusers.pipelines.controlnet.multicontrolnet import MultiControlNetModel

        ids = self.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
        hidden = self.text_encoder(ids, output_hidden_states=True)[-1][-2]
        embeds = self.text_encoder.text_model.final_layer_norm(hidden)
        latents = randn_tensor((1, 4, 8, 8), generator=generator, device=ids.device, dtype=embeds.dtype)
        return self.vae.decode(latents - self.unet(latents, 1, encoder_hidden_states=embeds).sample).sample
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny_pipelines.stable_diffusion().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def _drawn(pipe: Any) -> np.ndarray:
    return np.asarray(pipe("a red dog", torch.Generator().manual_seed(3)))


def test_an_old_pipeline_runs_on_an_engine(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "skipping.py"
    file.write_text(OLD)
    more: dict[str, Any] = {"custom_pipeline": str(file), "trust_remote_code": True}
    with moved.as_before():
        want = _drawn(diffusers.DiffusionPipeline.from_pretrained(model, **more))
    with caplog.at_level(logging.WARNING, "paritas.diffusers"):
        made = ours.DiffusionPipeline.from_pretrained(model, **more, engine="openvino")
    np.testing.assert_allclose(_drawn(made), want, atol=1e-4)
    assert made.unet.ports and made.vae.ports and made.text_encoder.ports
    for line in (
        "skipping.py:3: CLIPFeatureExtractor of transformers is CLIPImageProcessor of transformers now",
        "skipping.py:6: diffusers.models.unet_2d_condition is diffusers.models.unets.unet_2d_condition now",
        "skipping.py:8: diffusers.pipelines.unclip is diffusers.pipelines.deprecated.unclip now",
        "skipping.py:9: randn_tensor of diffusers.utils is randn_tensor of diffusers.utils.torch_utils now",
        "skipping.py:10: diffusers.models.vae is diffusers.models.autoencoders.vae now",
        "skipping.py:25: text_model is the text encoder itself since transformers 5",
    ):
        assert line in caplog.text
    # No other code sees anything of it.
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("diffusers.pipelines.unclip")
    assert not hasattr(made.text_encoder, "text_model")
    with pytest.raises(ImportError, match="CLIPFeatureExtractor"):
        diffusers.DiffusionPipeline.from_pretrained(model, **more)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("from diffusers.utils import no_such_name", "no_such_name"),
        ("from diffusers.pipelines.unclip import NoSuchName", "NoSuchName"),
        ("import no_such_package", "no_such_package"),
        ("from diffusers.loaders.controlnet import FromOriginalControlNetMixin", "diffusers.loaders.controlnet"),
    ],
)
def test_what_is_gone_stays_an_error(line: str, error: str, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "gone.py"
    file.write_text(f"{line}\n{OLD}")
    with pytest.raises(ImportError, match=error):
        ours.DiffusionPipeline.from_pretrained(model, custom_pipeline=str(file), trust_remote_code=True)


@pytest.mark.parametrize(
    "name",
    [
        *moved.MODULES,
        "diffusers.models.autoencoder_kl",
        "diffusers.models.controlnet",
        "diffusers.models.transformer_2d",
        "diffusers.models.unet_motion_model",
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_sag",
        "diffusers.pipelines.stable_diffusion_ldm3d.pipeline_stable_diffusion_ldm3d",
        "diffusers.pipelines.unclip.text_proj",
        "diffusers.schedulers.scheduling_karras_ve",
    ],
)
def test_modules_that_have_moved(name: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)
    found = moved.new_module(name)
    assert found is not None
    importlib.import_module(found)


@pytest.mark.parametrize(("was", "place"), moved.NAMES.items(), ids=lambda one: ".".join(one))
def test_names_that_have_moved(was: tuple[str, str], place: tuple[str, str]) -> None:
    assert getattr(importlib.import_module(place[0]), place[1]) is not None
    tree = moved.rewritten(f"from {was[0]} import {was[1]} as found", "old.py")
    assert ast.unparse(tree) == f"from {place[0]} import {place[1]} as found"
    space: dict[str, Any] = {}
    exec(compile(tree, "old.py", "exec"), space)  # noqa: S102 - it is what is tested
    assert space["found"] is getattr(importlib.import_module(place[0]), place[1])


@pytest.mark.parametrize(
    "name", ["diffusers", "diffusers.models", "diffusers.loaders.controlnet", "torch.gone", "json"]
)
def test_modules_that_are_in_their_place_or_gone(name: str) -> None:
    assert moved.new_module(name) is None


def test_features_are_the_tensor_that_they_were() -> None:
    source = "def similar(clip, x):\n    return clip.get_image_features(x) / 2\n"
    space: dict[str, Any] = {"_paritas_features": moved.features}
    exec(compile(moved.rewritten(source, "old.py"), "old.py", "exec"), space)  # noqa: S102 - it is what is tested
    layers = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**layers, "vocab_size": 9, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**layers, "image_size": 8, "patch_size": 4}, projection_dim=4
    )
    clip, x = transformers.CLIPModel(config).eval(), torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(space["similar"](clip, x), clip.get_image_features(x).pooler_output / 2)
    # A file that knows of the object gets it.
    newer = "clip.get_image_features(x).pooler_output"
    assert ast.unparse(moved.rewritten(newer, "new.py")) == newer
