# SPDX-License-Identifier: Apache-2.0
"""What is changed in a pipeline while it is in use, before it is ported or after: the picture is PyTorch's then too."""

from __future__ import annotations

import copy
import itertools
import logging
import types
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
import diffusers
import tiny_pipelines
from diffusers import hooks
from tiny_pipelines import ENGINES

import paritas.diffusers as ours
from paritas.diffusers.porting import networks
from paritas.errors import InputError

Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ports")


@pytest.fixture(autouse=True)
def cache(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARITAS_CACHE", str(kept))


def _picture(pipeline: Any, **more: Any) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(3)
    call = {"prompt": "a red dog", "num_inference_steps": 2, "generator": noise, "output_type": "np", **more}
    return np.asarray(pipeline(**call).images)


def _random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def _compare(make: Any, picture: Any, change: Change, call: dict[str, Any], when: str, engine: str) -> Any:
    """`change` before a pipeline is ported, or after it has made a picture: the next one is that of the original.

    Returns the ported one.
    """
    theirs, mine = make(), make()
    change(theirs)
    if when == "before":
        change(mine)
    ours.port(mine, engine=engine)
    if when == "after":
        picture(mine)
        change(mine)
    np.testing.assert_allclose(picture(mine, **call), picture(theirs, **call), atol=1e-4)
    assert mine.dtype == torch.float64 or any(one.ports for one in networks(mine).values())
    return mine


def _rows(table: dict[str, Any], daily: Container[tuple[str, ...]] = (), *others: tuple[str, ...]) -> list[Any]:
    """Every row of a table with these other arguments of a test, on every engine. The daily ones are OpenVINO's."""
    cases = itertools.product(table, *others, _ENGINES)
    is_daily = ((case, case[-1] == _ENGINES[0] and case[:-1] in daily) for case in cases)
    return [pytest.param(*case, marks=() if today else pytest.mark.slow) for case, today in is_daily]


_ENGINES = ("openvino", "mindspore")

_WHEN = ("before", "after")


# --- what is loaded into a pipeline --------------------------------------------------------------------------


def _word(pipeline: Any) -> None:
    pipeline.load_textual_inversion({"<cat>": _random(1, 16, seed=5)}, token="<cat>")


def _image_prompt(pipeline: Any) -> None:
    """An IP-adapter of random weights, for pictures that come as embeddings."""
    modules = dict(pipeline.unet.named_modules())
    found: dict[str, torch.Tensor] = {}
    cross = [name for name in pipeline.unet.attn_processors if not name.endswith("attn1.processor")]
    for index, name in enumerate(cross):
        hidden = modules[name.removesuffix(".processor")].to_k.weight.shape[0]
        for kind in ("k", "v"):
            found[f"{2 * index + 1}.to_{kind}_ip.weight"] = _random(hidden, 16, seed=10 + index)
    projection = {"proj.weight": _random(64, 16, seed=1), "proj.bias": _random(64, seed=2)}
    projection |= {"norm.weight": _random(16, seed=3), "norm.bias": _random(16, seed=4)}
    state = {"image_proj": projection, "ip_adapter": found}
    pipeline.load_ip_adapter(state, subfolder=None, weight_name=None, image_encoder_folder=None)
    pipeline.set_ip_adapter_scale(0.8)


_IMAGE = {"ip_adapter_image_embeds": [_random(2, 1, 16, seed=30)]}


def _lora(pipeline: Any, seed: int = 7) -> dict[str, torch.Tensor]:
    found = {}
    for part, ends in (("unet", ("to_q", "to_v")), ("text_encoder", ("q_proj", "v_proj"))):
        for name, module in getattr(pipeline, part).named_modules():
            if isinstance(module, torch.nn.Linear) and name.endswith(ends):
                found[f"{part}.{name}.lora_A.weight"] = _random(2, module.in_features, seed=seed)
                found[f"{part}.{name}.lora_B.weight"] = _random(module.out_features, 2, seed=seed + 1)
    return found


def _one(pipeline: Any) -> None:
    pipeline.load_lora_weights(_lora(pipeline), adapter_name="one")


def _two(pipeline: Any) -> None:
    second = _lora(pipeline, 70)  # by the names that layers have before there is an adapter
    _one(pipeline)
    pipeline.load_lora_weights(second, adapter_name="two")
    pipeline.set_adapters(["one", "two"], [0.5, 0.9])


def _fused(pipeline: Any) -> None:
    _one(pipeline)
    pipeline.fuse_lora(lora_scale=0.7)


def _fused_and_gone(pipeline: Any) -> None:
    _fused(pipeline)
    pipeline.unload_lora_weights()


def _gone(pipeline: Any) -> None:
    _one(pipeline)
    pipeline.unload_lora_weights()


_LORA: dict[str, tuple[Change, dict[str, Any]]] = {
    "one": (_one, {}),
    "its scale in the call": (_one, {"cross_attention_kwargs": {"scale": 0.3}}),
    "two": (_two, {}),
    "fused": (_fused, {}),
    "fused and unloaded": (_fused_and_gone, {}),
    "unloaded": (_gone, {}),
}


@pytest.mark.parametrize(("name", "when", "engine"), _rows(_LORA, (), _WHEN))
def test_lora(name: str, when: str, engine: str) -> None:
    """With `pip install peft`, which the environment of `make` does not have."""
    pytest.importorskip("peft")
    change, call = _LORA[name]
    _compare(tiny_pipelines.stable_diffusion, _picture, change, call, when, engine)


# --- what is switched in its networks ------------------------------------------------------------------------


class _Louder(diffusers.models.attention_processor.AttnProcessor2_0):
    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return super().__call__(*args, **kwargs) * 1.5


def _past_torch(pipeline: Any) -> None:
    for network in networks(pipeline).values():
        weight = max(network.parameters(), key=torch.numel).detach()
        weight.untyped_storage().copy_((weight * 1.5).untyped_storage())


_SWITCHED: dict[str, tuple[Change, dict[str, Any]]] = {
    "textual inversion": (_word, {"prompt": "a <cat>"}),
    "IP-adapter": (_image_prompt, _IMAGE),
    "FreeU": (lambda p: p.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4), {}),
    "fused projections": (lambda p: p.unet.fuse_qkv_projections(), {}),
    "slices of a batch": (lambda p: p.vae.enable_slicing(), {"num_images_per_prompt": 2}),
    "slices of attention": (lambda p: p.enable_attention_slicing(1), {}),
    "other processors": (lambda p: p.unet.set_attn_processor(_Louder()), {}),
    "weights written past torch": (_past_torch, {}),
    "a device": (lambda p: p.to("cpu"), {}),
    "float64": (lambda p: p.to(torch.float64), {}),
    "weights in float8": (
        lambda p: p.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32),
        {},
    ),
    "groups that are offloaded": (
        lambda p: p.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level"),
        {},
    ),
}

#: Of these the daily suite has one order.
_DAILY = {("textual inversion", "after"), ("other processors", "after")}


@pytest.mark.parametrize(("name", "when", "engine"), _rows(_SWITCHED, _DAILY, _WHEN))
def test_switched(name: str, when: str, engine: str) -> None:
    if name == "groups that are offloaded":
        pytest.importorskip("accelerate")  # without which diffusers fails by itself
    change, call = _SWITCHED[name]
    _compare(tiny_pipelines.stable_diffusion, _picture, change, call, when, engine)


# --- caches, which go on from step to step -------------------------------------------------------------------


def _flux() -> Any:
    torch.manual_seed(0)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return diffusers.FluxPipeline(scheduler=scheduler, transformer=transformer.eval(), **parts)


def _latents(pipeline: Any, **more: Any) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    call = {"prompt_embeds": _random(1, 6, 32, seed=1), "pooled_prompt_embeds": _random(1, 16, seed=2), "height": 64}
    noise = torch.Generator().manual_seed(3)
    call |= {"width": 64, "num_inference_steps": 5, "generator": noise, "output_type": "latent", **more}
    return np.asarray(pipeline(**call).images)


_CACHES: dict[str, Callable[[Any], Any]] = {
    "first block": lambda p: hooks.FirstBlockCacheConfig(threshold=0.3),
    "attention broadcast": lambda p: hooks.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(1, 999),
        current_timestep_callback=lambda: p.current_timestep,
    ),
    "faster": lambda p: hooks.FasterCacheConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 901),
        attention_weight_callback=lambda _: 0.5,
        is_guidance_distilled=True,
        current_timestep_callback=lambda: p.current_timestep,
    ),
    "Taylor": lambda p: hooks.TaylorSeerCacheConfig(cache_interval=2, disable_cache_before_step=2),
}


#: Ports of a transformer: of its blocks, or of what is in them where hooks are around their attentions.
_PORTS = {"first block": 10, "attention broadcast": 30, "faster": 30, "Taylor": 30}


@pytest.mark.parametrize(("name", "when", "engine"), _rows(_CACHES, {("first block", "before")}, _WHEN))
def test_caches(name: str, when: str, engine: str) -> None:
    mine = _compare(_flux, _latents, lambda p: p.transformer.enable_cache(_CACHES[name](p)), {}, when, engine)
    assert len(mine.transformer._paritas.now.all_ports()) == _PORTS[name]


@pytest.mark.slow
def test_a_pipeline_with_a_cache_is_not_saved(tmp_path: Path) -> None:
    pipeline = ours.port(_flux(), engine="openvino")
    pipeline.transformer.enable_cache(_CACHES["first block"](pipeline))
    _latents(pipeline)
    with pytest.raises(InputError, match=r"transformer has hooks .*disable_cache"):
        pipeline.save_pretrained(tmp_path / "saved")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_cache_that_is_turned_off_again(engine: str) -> None:
    def change(pipeline: Any) -> None:
        pipeline.transformer.enable_cache(_CACHES["first block"](pipeline))
        _latents(pipeline)
        pipeline.transformer.disable_cache()

    _compare(_flux, _latents, change, {}, "after", engine)


# --- other pipelines of the same networks --------------------------------------------------------------------


def _control(pipeline: Any) -> Any:
    torch.manual_seed(4)
    net = diffusers.ControlNetModel.from_unet(pipeline.unet, conditioning_embedding_out_channels=(4, 8)).eval()
    with torch.no_grad():
        for block in (*net.controlnet_down_blocks, net.controlnet_mid_block, net.controlnet_cond_embedding.conv_out):
            for parameter in block.parameters():
                parameter.normal_(0, 0.1)
    return net


_OTHERS: dict[str, tuple[Callable[[Any, Any], Any], dict[str, Any]]] = {
    "perturbed attention": (
        lambda space, p: space.AutoPipelineForText2Image.from_pipe(p, enable_pag=True, pag_applied_layers=["mid"]),
        {"pag_scale": 2.0},
    ),
    "ControlNet": (
        lambda space, p: space.StableDiffusionControlNetPipeline.from_pipe(p, controlnet=_control(p)),
        {"image": _random(1, 3, 16, 16, seed=9)},
    ),
    "image to image": (
        lambda space, p: space.AutoPipelineForImage2Image.from_pipe(p),
        {"image": _random(1, 3, 16, 16, seed=9).clamp(0, 1), "strength": 0.9},
    ),
    "a copy": (lambda space, p: copy.deepcopy(p), {}),
}


@pytest.mark.parametrize(("name", "engine"), _rows(_OTHERS, {("ControlNet",), ("a copy",)}))
def test_other_pipelines_of_its_networks(name: str, engine: str) -> None:
    make, call = _OTHERS[name]
    theirs = make(diffusers, tiny_pipelines.stable_diffusion())
    mine = ours.port(tiny_pipelines.stable_diffusion(), engine=engine)
    other = make(ours, mine)
    assert type(other) is type(theirs)
    np.testing.assert_allclose(_picture(other, **call), _picture(theirs, **call), atol=1e-4)
    np.testing.assert_allclose(_picture(mine), _picture(tiny_pipelines.stable_diffusion()), atol=1e-4)
    assert {one.engine for one in networks(other).values()} == {engine}


_CUSTOM = """
import torch
from diffusers import StableDiffusionPipeline


class TwiceAsBright(StableDiffusionPipeline):
    @torch.no_grad()
    def __call__(self, prompt, **kwargs):
        out = super().__call__(prompt, **kwargs)
        out.images = out.images * 2
        return out
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_pipeline_of_ones_own(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_pipelines.stable_diffusion().save_pretrained(tmp_path / "original")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    place = tmp_path / "own"
    place.mkdir()
    file = place / "pipeline.py"
    file.write_text(_CUSTOM)
    given = {"custom_pipeline": str(file if kind == "file" else place), "trust_remote_code": True}
    theirs = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "original", **given)
    mine = ours.DiffusionPipeline.from_pretrained(tmp_path / "original", engine="openvino", **given)
    assert type(mine).__name__ == "TwiceAsBright" and mine.unet.engine == "openvino"
    np.testing.assert_allclose(_picture(mine), _picture(theirs), atol=1e-4)


def test_a_network_is_described_alike_in_every_process() -> None:
    """So that ports that are kept are found again: diffusers lists what a configuration leaves out in no order."""
    from paritas.dropin.describe import describe

    unet = tiny_pipelines.parts()["unet"]
    names = {id(tensor): name for name, tensor in unet.named_parameters()}
    before = describe(unet, names, repr)
    left_out = unet._internal_dict["_use_default_values"]
    assert len(left_out) > 1
    left_out.reverse()
    assert describe(unet, names, repr) == before


# --- no network is bypassed ----------------------------------------------------------------------------------


def _controlled() -> Any:
    parts = tiny_pipelines.parts()
    return diffusers.StableDiffusionControlNetImg2ImgPipeline(
        **parts, controlnet=_control(types.SimpleNamespace(unet=parts["unet"])), requires_safety_checker=False
    )


def _with_first_block_cache() -> Any:
    made = _flux()
    made.transformer.enable_cache(hooks.FirstBlockCacheConfig(threshold=0.3))
    return made


_SHAPES = _random(1, 3, 16, 16, seed=9).clamp(0, 1)

_MECHANISMS: dict[str, tuple[Callable[[], Any], Callable[..., np.ndarray], dict[str, Any]]] = {
    "encode, decode and ControlNet": (
        _controlled,
        _picture,
        {"image": _SHAPES, "control_image": _SHAPES.flip(3), "strength": 1.0, "guidance_scale": 30.0},
    ),
    "layer by layer": (_with_first_block_cache, _latents, {}),
}


@pytest.mark.parametrize(
    ("name", "engine"), _rows(_MECHANISMS, {("encode, decode and ControlNet",), ("layer by layer",)})
)
def test_no_network_is_bypassed(name: str, engine: str) -> None:
    """One after another, the weights of each are changed by 1 %, and the picture with them, as PyTorch's."""
    make, picture, call = _MECHANISMS[name]
    theirs, mine = make(), ours.port(make(), engine=engine)
    before = picture(mine, **call)
    for network in networks(mine):
        for pipeline in (theirs, mine):
            noise = torch.Generator().manual_seed(1)
            with torch.no_grad():
                for weight in networks(pipeline)[network].parameters():
                    weight.mul_(1 + 0.01 * torch.randn(weight.shape, generator=noise).sign())
        after = picture(mine, **call)
        np.testing.assert_allclose(after, picture(theirs, **call), atol=1e-4)
        assert np.abs(after - before).max() > 1e-3, network
        before = after


# --- gradients -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_pipeline_that_differentiates_its_network(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    """Attend-and-Excite moves latents along gradients through the UNet, which is PyTorch's then, with a note."""
    call = {"token_indices": [2, 3], "max_iter_to_alter": 1, "num_inference_steps": 2, "thresholds": {0: 0.5}}
    made = []
    for port in (False, True):
        torch.manual_seed(0)
        pipeline = diffusers.StableDiffusionAttendAndExcitePipeline(
            **tiny_pipelines.parts(), requires_safety_checker=False
        )
        if port:
            ours.port(pipeline, engine=engine)
        with caplog.at_level(logging.WARNING, "paritas.diffusers"):
            made.append(_picture(pipeline, height=32, width=32, attn_res=(8, 8), **call))
    np.testing.assert_allclose(made[1], made[0], atol=1e-4)
    assert "UNet2DConditionModel: PyTorch computes, since a gradient by" in caplog.text
