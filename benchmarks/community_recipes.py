# SPDX-License-Identifier: Apache-2.0
"""The community pipelines of diffusers' table, each with a tiny model and a short call, for `community.py`.

A recipe writes a model into a directory, returns what `from_pretrained` is given beside it, and calls the pipeline.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import community_networks as tiny
import diffusers
import numpy as np
import torch
import transformers

SIZE = {"height": 64, "width": 64}
STEPS = {"num_inference_steps": 2}
PROMPT = "a red dog on a blue horse"


def seed(number: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def plain(folder: Path) -> dict[str, Any]:
    tiny.stable_diffusion(folder)
    return {}


def text_to_image(pipe: Any, _folder: Path) -> Any:
    return pipe(PROMPT, **SIZE, **STEPS, generator=seed(), output_type="np")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """model: writes it, and returns more components. call: what is compared.
    hardware: why it is for other hardware; then it is not run.
    """

    model: Callable[[Path], dict[str, Any]] = plain
    call: Callable[[Any, Path], Any] = text_to_image
    hardware: str = ""


def _clip(folder: Path) -> dict[str, Any]:
    tiny.stable_diffusion(folder)
    return {"clip_model": tiny.clip(), "feature_extractor": tiny.image_processor()}


def _guided(pipe: Any, _folder: Path) -> Any:
    more = {"clip_guidance_scale": 100, "use_cutouts": False, "output_type": "np"}
    return pipe(PROMPT, **SIZE, **STEPS, **more, generator=seed())


def _guided_image(pipe: Any, _folder: Path) -> Any:
    more = {"clip_guidance_scale": 100, "use_cutouts": False, "output_type": "np", "strength": 0.9}
    return pipe(PROMPT, image=tiny.image(), **SIZE, **STEPS, **more, generator=seed())


def _mixing(pipe: Any, _folder: Path) -> Any:
    prompts = {"style_prompt": "a cat", "content_prompt": "a dog"}
    sizes = {"clip_guidance_scale": 100, "noise_strength": 0.9}
    images = {"style_image": tiny.image(seed=1), "content_image": tiny.image()}
    return pipe(**images, **prompts, **SIZE, **STEPS, **sizes, generator=seed(), output_type="np")


def _gligen(folder: Path) -> dict[str, Any]:
    blocks = {"down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D")}
    blocks |= {"up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D")}
    tiny.stable_diffusion(folder, attention_type="gated", layers_per_block=2, **blocks)
    return {}


def _layout(pipe: Any, _folder: Path) -> Any:
    return pipe(
        PROMPT, phrases=["a red dog", "a blue horse"], boxes=[[0.1, 0.2, 0.4, 0.7], [0.5, 0.4, 0.9, 0.7]], **STEPS,
        **SIZE, gligen_scheduled_sampling_beta=0.5, lmd_guidance_kwargs={}, generator=seed(), output_type="np",
    )  # fmt: skip


def _unconditional(folder: Path) -> dict[str, Any]:
    plain_blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    tiny.unconditional(folder, **plain_blocks)  # the file makes pictures of 256 by 256
    return {}


def _one_step(folder: Path) -> dict[str, Any]:
    tiny.unconditional(folder, scheduler=diffusers.DDPMScheduler())
    return {}


def _walk(pipe: Any, folder: Path) -> Any:
    out = folder / "walk"
    more = {"output_dir": str(out), "name": "one", "batch_size": 1, "num_interpolation_steps": 3}
    frames = pipe.walk(prompts=["a dog", "a cat"], seeds=[42, 1337], **more, **SIZE, **STEPS)
    import PIL.Image

    return {"frames": [np.asarray(PIL.Image.open(path)) for path in frames]}


def _mega(pipe: Any, _folder: Path) -> Any:
    drawn = pipe.text2img(PROMPT, **SIZE, **STEPS, generator=seed(), output_type="np").images
    image = tiny.image()
    changed = pipe.img2img(PROMPT, image=image, strength=0.9, **STEPS, generator=seed(), output_type="np").images
    more = {"mask_image": tiny.mask(), "strength": 0.9, "output_type": "np"}
    painted = pipe.inpaint(PROMPT, image=image, **more, **STEPS, generator=seed()).images
    return {"text2img": drawn, "img2img": changed, "inpaint": painted}


def _weighted(pipe: Any, _folder: Path) -> Any:
    prompt, more = "a (red:1.4) dog [on] ((a)) horse " * 6, {"negative_prompt": "bad", "output_type": "np"}
    drawn = pipe.text2img(prompt, **more, **SIZE, **STEPS, generator=seed(), max_embeddings_multiples=3).images
    changed = pipe.img2img(tiny.image(), prompt, strength=0.9, **more, **STEPS, generator=seed()).images
    return {"text2img": drawn, "img2img": changed}


def _weighted_xl(pipe: Any, _folder: Path) -> Any:
    prompt = "a (red:1.4) dog on ((a)) horse " * 6
    return pipe(prompt, negative_prompt="bad", **SIZE, **STEPS, generator=seed(), output_type="np")


def _speech(folder: Path) -> dict[str, Any]:
    tiny.stable_diffusion(folder)
    return tiny.speech()


def _spoken(pipe: Any, _folder: Path) -> Any:
    audio = np.sin(np.arange(16000) * 0.05).astype("float32")
    return pipe(audio, **SIZE, **STEPS, generator=seed(), output_type="np")


def _wildcards(pipe: Any, folder: Path) -> Any:
    (folder / "animal.txt").write_text("dog\ncat\nmouse\n")
    clothes = {"clothing": ["hat", "shirt", "scarf"]}
    more = {"wildcard_option_dict": clothes, "wildcard_files": [str(folder / "animal.txt")], "num_prompt_samples": 1}
    return pipe("__animal__ in a __clothing__", **more, **SIZE, **STEPS, generator=seed(), output_type="np")


def _composed(pipe: Any, _folder: Path) -> Any:
    prompt, weights = "trees | a pond | dark", "7.5 | 7.5 | -7.5"
    return pipe(prompt, weights=weights, **SIZE, **STEPS, generator=seed(), output_type="np")


def _wider(pipe: Any, _folder: Path) -> Any:
    return pipe(PROMPT, height=64, width=96, **STEPS, generator=seed(), output_type="np")


def _imagic(folder: Path) -> dict[str, Any]:
    tiny.stable_diffusion(folder)
    return {"safety_checker": None}


def _trained(pipe: Any, _folder: Path) -> Any:
    steps = {"text_embedding_optimization_steps": 2, "model_fine_tuning_optimization_steps": 2}
    pipe.train(PROMPT, image=tiny.image(), **SIZE, **steps, generator=seed())
    return pipe(alpha=1.5, **SIZE, **STEPS, generator=seed(), output_type="np")


def _multilingual(folder: Path) -> dict[str, Any]:
    tiny.stable_diffusion(folder)
    torch.manual_seed(4)
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: index for index, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    marks = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    words_of = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **marks)
    config = transformers.MBartConfig(
        vocab_size=len(words), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=128,
        decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    model = transformers.MBartForConditionalGeneration(config).eval()
    model.generation_config.max_length = 12

    def detect(_text: Any, **_options: Any) -> list[dict[str, str]]:
        return [{"label": "de"}]

    return {"detection_pipeline": detect, "translation_model": model, "translation_tokenizer": words_of}


def _inpainting(folder: Path) -> dict[str, Any]:
    tiny.stable_diffusion(folder, in_channels=9)
    return {}


def _overlaid(pipe: Any, _folder: Path) -> Any:
    images = {"image": tiny.image(), "inner_image": tiny.image(mode="RGBA", seed=1), "mask_image": tiny.mask()}
    return pipe(PROMPT, **images, **SIZE, **STEPS, generator=seed(), output_type="np")


def _segmenting(folder: Path) -> dict[str, Any]:
    tiny.stable_diffusion(folder, in_channels=9)
    torch.manual_seed(5)
    layers = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    text = {**layers, "vocab_size": 514, "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    config = transformers.CLIPSegConfig(
        text_config=text, vision_config={**layers, "image_size": 32, "patch_size": 8}, projection_dim=16,
        reduce_dim=8, extract_layers=[0, 1, 2], decoder_num_attention_heads=2, decoder_intermediate_size=16,
    )  # fmt: skip
    model = transformers.CLIPSegForImageSegmentation(config).eval()
    size = {"height": 32, "width": 32}
    images = transformers.ViTImageProcessor(size=size)
    return {
        "segmentation_model": model,
        "segmentation_processor": transformers.CLIPSegProcessor(images, tiny.tokenizer()),
    }


def _segmented(pipe: Any, _folder: Path) -> Any:
    return pipe(PROMPT, image=tiny.image(), text="a dog", **SIZE, **STEPS, generator=seed(), output_type="np")


def _bits(folder: Path) -> dict[str, Any]:
    tiny.unconditional(folder, in_channels=24, out_channels=24)
    return {}


def _of_bits(pipe: Any, _folder: Path) -> Any:
    return pipe(height=16, width=16, **STEPS, generator=seed(), output_type="np")


def _karras(folder: Path) -> dict[str, Any]:
    tiny.stable_diffusion(folder, scheduler=diffusers.LMSDiscreteScheduler(**tiny.BETAS))
    return {}


def _sampled(pipe: Any, _folder: Path) -> Any:
    pipe.set_scheduler("sample_heun")
    return text_to_image(pipe, _folder)


def _two(folder: Path) -> dict[str, Any]:
    for number, name in enumerate((".", "one", "two")):
        tiny.stable_diffusion(folder / name, seed=number)
    return {}


def _merged(pipe: Any, folder: Path) -> Any:
    merged = pipe.merge([str(folder / "one"), str(folder / "two")], interp="sigmoid", alpha=0.4)
    return text_to_image(_engine_of(pipe, merged), folder)


def _engine_of(pipe: Any, made: Any) -> Any:
    """What a pipeline makes in memory goes to the engine as any other: `port`."""
    from paritas.diffusers import port

    return port(made, engine=pipe._engine_of_benchmark) if pipe._engine_of_benchmark else made


def _mixed(pipe: Any, _folder: Path) -> Any:
    return {"image": np.asarray(pipe(tiny.image(), prompt="bed", kmin=0.3, kmax=0.5, mix_factor=0.5, steps=4))}


def _prior(folder: Path) -> dict[str, Any]:
    tiny.unclip(folder, from_images=False)
    torch.manual_seed(6)
    tiny.image_variation(folder / "lambdalabs" / "sd-image-variations-diffusers")  # so the file calls it
    return {"decoder_pipe_kwargs": {"image_encoder": None}}


def _unclip_drawn(pipe: Any, _folder: Path) -> Any:
    steps = {"prior_num_inference_steps": 2, "decoder_num_inference_steps": 2}
    return pipe(PROMPT, **SIZE, **steps, generator=seed(), output_type="np")


def _unclip_texts(folder: Path) -> dict[str, Any]:
    return tiny.unclip(folder, from_images=False)


def _unclip_images(folder: Path) -> dict[str, Any]:
    return tiny.unclip(folder, from_images=True)


_UNCLIP = {"steps": 3, "decoder_num_inference_steps": 2, "super_res_num_inference_steps": 2, "output_type": "np"}


def _between_texts(pipe: Any, _folder: Path) -> Any:
    more = {"prior_num_inference_steps": 2, "enable_sequential_cpu_offload": False}
    return pipe("a lion", "a cub", **_UNCLIP, **more, generator=seed())


def _between_images(pipe: Any, _folder: Path) -> Any:
    return pipe(image=[tiny.image(), tiny.image(seed=1)], **_UNCLIP, generator=seed())


def _from_noise(pipe: Any, _folder: Path) -> Any:
    out = pipe(
        tiny.image(16), strength=0.5, num_inference_steps=4, generator=seed(), output_type="np", return_dict=False
    )
    return {"images": out[0]}


def _edict(pipe: Any, _folder: Path) -> Any:
    more = {"image": tiny.image(), "strength": 0.9, "num_inference_steps": 4, "generator": seed()}
    return {"images": pipe(base_prompt="a dog", target_prompt="a cat", **more, output_type="np")}


def _repainting(folder: Path) -> dict[str, Any]:
    tiny.stable_diffusion(folder, scheduler=diffusers.RePaintScheduler(beta_schedule="linear"))
    return {}


def _repainted(pipe: Any, _folder: Path) -> Any:
    more = {"jump_length": 2, "jump_n_sample": 2, "num_inference_steps": 4, "output_type": "np"}
    return pipe(PROMPT, image=tiny.image(), mask_image=tiny.mask(), **more, generator=seed())


def _blended(pipe: Any, _folder: Path) -> Any:
    return pipe(batch_size=1, **STEPS, generator=seed(), output_type="np")


def _blending(folder: Path) -> dict[str, Any]:
    tiny.unconditional(folder)
    return {"scheduler": _module("iadb").IADBScheduler()}


def _module(name: str) -> Any:
    """A community file as a module, for the classes that it has beside its pipeline."""
    from importlib import util

    spec = util.spec_from_file_location(f"community_{name}", COMMUNITY[0] / f"{name}.py")
    assert spec is not None and spec.loader is not None
    made = util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


#: Where the files are: set by `community.py`.
COMMUNITY: list[Path] = []


def _views(folder: Path) -> dict[str, Any]:
    tiny.image_variation(folder, in_channels=8, image_size=224)
    torch.manual_seed(9)
    return {"cc_projection": tiny.woken(_module("pipeline_zero1to3").CCProjection(20, 16)), "safety_checker": None}


def _viewed(pipe: Any, _folder: Path) -> Any:
    images = {"input_imgs": [tiny.image()], "prompt_imgs": [tiny.image()], "poses": [[10.0, 20.0, 0.0]]}
    return pipe(**images, **SIZE, **STEPS, generator=seed(), output_type="np")


def _xl(folder: Path) -> dict[str, Any]:
    tiny.stable_diffusion_xl(folder)
    return {}


def _large_xl(folder: Path) -> dict[str, Any]:
    tiny.stable_diffusion_xl(folder, sample_size=64)
    return {}


def _liked(pipe: Any, _folder: Path) -> Any:
    more = {"liked": [tiny.image()], "disliked": [tiny.image(seed=1)], "num_images": 1, "output_type": "np"}
    return pipe(PROMPT, **more, **SIZE, num_inference_steps=3, generator=seed())


def _masked(pipe: Any, _folder: Path) -> Any:
    images = {"image": tiny.image(), "mask": tiny.mask(), "strength": 0.9}
    return pipe(PROMPT, **images, **STEPS, generator=seed(), output_type="np")


def _edited(pipe: Any, _folder: Path) -> Any:
    edit = {"edit_type": "replace", "n_self_replace": 0.4, "n_cross_replace": {"default_": 1.0}}
    prompts = ["a red dog", "a red cat"]
    return pipe(prompts, **SIZE, **STEPS, cross_attention_kwargs=edit, generator=seed(), output_type="np")


def _consistent(folder: Path) -> dict[str, Any]:
    tiny.stable_diffusion(folder, scheduler=diffusers.LCMScheduler(**tiny.BETAS), time_cond_proj_dim=16)
    return {}


def _of_its_own(folder: Path) -> dict[str, Any]:
    """The files have a scheduler of their own, and embed the guidance in 256 numbers."""
    tiny.stable_diffusion(folder, time_cond_proj_dim=256)
    return {"scheduler": None}


def _consistent_drawn(pipe: Any, _folder: Path) -> Any:
    return pipe(PROMPT, **SIZE, **STEPS, output_type="np")


def _consistent_changed(pipe: Any, _folder: Path) -> Any:
    return pipe(PROMPT, image=tiny.image(), strength=0.5, **SIZE, num_inference_steps=4, output_type="np")


def _consistent_walk(pipe: Any, _folder: Path) -> Any:
    more = {"num_interpolation_steps": 2, "output_type": "np", "process_batch_size": 2}
    return pipe(["a dog", "a cat"], **SIZE, **STEPS, **more, generator=seed())


def _dragged(pipe: Any, _folder: Path) -> Any:
    points = {"source_points": [(20, 20)], "target_points": [(24, 24)]}
    more = {"t0": 0.6, "steps": 4, "step_size": 4, "generator": seed()}
    return {"image": np.asarray(pipe(PROMPT, tiny.image(), tiny.mask(), **points, **more))}


def _regional(pipe: Any, _folder: Path) -> Any:
    return pipe(
        "green hair BREAK red blouse BREAK blue skirt", negative_prompt="bad", rp_args={"mode": "rows", "div": "1;1;1"},
        **SIZE, **STEPS, generator=seed(), output_type="np",
    )  # fmt: skip


def _deep(folder: Path) -> dict[str, Any]:
    torch.manual_seed(7)
    network = tiny.unet(in_channels=8, num_class_embeds=1000)
    made = diffusers.StableDiffusionUpscalePipeline(
        vae=tiny.vae(), text_encoder=tiny.text_encoder(), tokenizer=tiny.tokenizer(), unet=network,
        low_res_scheduler=diffusers.DDPMScheduler(), scheduler=tiny.ddim(), max_noise_level=350,
    )  # fmt: skip
    made.save_pretrained(folder)
    return {"vae": tiny.vae(in_channels=4, out_channels=4)}


def _deepened(pipe: Any, _folder: Path) -> Any:
    rgb, depth = [tiny.image(16)], [tiny.image(16, mode="L")]
    return pipe(PROMPT, rgb=rgb, depth=depth, **STEPS, target_res=[64, 64], generator=seed(), output_type="np")


def _animated(folder: Path) -> dict[str, Any]:
    blocks = {"block_out_channels": (8, 8), "attention_head_dim": 8}
    tiny.stable_diffusion(folder, **blocks)
    torch.manual_seed(8)
    adapter = diffusers.MotionAdapter(
        block_out_channels=(8, 8), motion_layers_per_block=1, motion_num_attention_heads=4, motion_norm_num_groups=2
    )
    control = diffusers.ControlNetModel(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), norm_num_groups=4, **blocks,
        cross_attention_dim=16, layers_per_block=1,
        conditioning_embedding_out_channels=(8, 8, 8, 8),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in control.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    return {"motion_adapter": adapter.eval(), "controlnet": control.eval()}


def _moving(pipe: Any, _folder: Path) -> Any:
    frames = [tiny.image(), tiny.image(seed=1)]
    return pipe(PROMPT, conditioning_frames=frames, num_frames=2, **SIZE, **STEPS, generator=seed(), output_type="pt")


def _fused(pipe: Any, _folder: Path) -> Any:
    more = {"view_batch_size": 16, "stride": 32, "output_type": "np", "multi_decoder": False}
    return {"images": pipe(PROMPT, height=1024, width=1024, **STEPS, **more, generator=seed())}


def _referred(pipe: Any, _folder: Path) -> Any:
    return pipe(
        PROMPT, ref_image=tiny.image(), reference_attn=True, reference_adain=True, **SIZE, **STEPS, generator=seed(),
        output_type="np",
    )  # fmt: skip


def _tiled(pipe: Any, _folder: Path) -> Any:
    tiles = {"tile_height": 64, "tile_width": 64, "tile_row_overlap": 32, "tile_col_overlap": 32, "seed": 5}
    return {"images": np.asarray(pipe([["a dog", "a cat"]], **tiles, **STEPS)["images"][0])}


def _canvas(pipe: Any, _folder: Path) -> Any:
    region = sys.modules[type(pipe).__module__].Text2ImageRegion
    left, right = {"col_init": 0, "col_end": 64}, {"col_init": 32, "col_end": 96}
    rows = {"row_init": 0, "row_end": 64}
    regions = [region(**rows, **left, prompt="a dog"), region(**rows, **right, prompt="a cat")]
    return {"images": np.asarray(pipe(64, 96, regions, **STEPS, seed=5)["images"][0])}


_IPEX = "for Intel's extension of PyTorch, which has ended: bf16 on Intel Xeon is what OpenVINO gives"
_ONNX = "calls networks that ONNX Runtime computes: its purpose is what an engine gives"
_TENSORRT = "builds TensorRT engines for NVIDIA: its purpose is what an engine gives"

RECIPES: dict[str, Recipe] = {
    "llm_grounded_diffusion": Recipe(_gligen, _layout),
    "clip_guided_stable_diffusion": Recipe(_clip, _guided),
    "one_step_unet": Recipe(_one_step, lambda pipe, _: {"sample": pipe()}),
    "interpolate_stable_diffusion": Recipe(call=_walk),
    "stable_diffusion_mega": Recipe(call=_mega),
    "lpw_stable_diffusion": Recipe(call=_weighted),
    "lpw_stable_diffusion_onnx": Recipe(hardware=_ONNX),
    "speech_to_image_diffusion": Recipe(_speech, _spoken),
    "wildcard_stable_diffusion": Recipe(call=_wildcards),
    "composable_stable_diffusion": Recipe(call=_composed),
    "seed_resize_stable_diffusion": Recipe(call=_wider),
    "imagic_stable_diffusion": Recipe(_imagic, _trained),
    "multilingual_stable_diffusion": Recipe(_multilingual),
    "img2img_inpainting": Recipe(_inpainting, _overlaid),
    "text_inpainting": Recipe(_segmenting, _segmented),
    "bit_diffusion": Recipe(_bits, _of_bits),
    "sd_text2img_k_diffusion": Recipe(_karras, _sampled),
    "checkpoint_merger": Recipe(_two, _merged),
    "stable_diffusion_comparison": Recipe(),
    "magic_mix": Recipe(call=_mixed),
    "stable_unclip": Recipe(_prior, _unclip_drawn),
    "unclip_text_interpolation": Recipe(_unclip_texts, _between_texts),
    "unclip_image_interpolation": Recipe(_unclip_images, _between_images),
    "ddim_noise_comparative_analysis": Recipe(_unconditional, _from_noise),
    "clip_guided_stable_diffusion_img2img": Recipe(_clip, _guided_image),
    "stable_diffusion_tensorrt_txt2img": Recipe(hardware=_TENSORRT),
    "edict_pipeline": Recipe(call=_edict),
    "stable_diffusion_repaint": Recipe(_repainting, _repainted),
    "stable_diffusion_tensorrt_img2img": Recipe(hardware=_TENSORRT),
    "stable_diffusion_ipex": Recipe(hardware=_IPEX),
    "clip_guided_images_mixing_stable_diffusion": Recipe(_clip, _mixing),
    "stable_diffusion_tensorrt_inpaint": Recipe(hardware=_TENSORRT),
    "iadb": Recipe(_blending, _blended),
    "pipeline_zero1to3": Recipe(_views, _viewed),
    "lpw_stable_diffusion_xl": Recipe(_xl, _weighted_xl),
    "pipeline_fabric": Recipe(call=_liked),
    "masked_stable_diffusion_img2img": Recipe(call=_masked),
    "pipeline_prompt2prompt": Recipe(call=_edited),
    "latent_consistency_txt2img": Recipe(_of_its_own, _consistent_drawn),
    "latent_consistency_img2img": Recipe(_of_its_own, _consistent_changed),
    "latent_consistency_interpolate": Recipe(_consistent, _consistent_walk),
    "sde_drag": Recipe(call=_dragged),
    "regional_prompting_stable_diffusion": Recipe(call=_regional),
    "pipeline_stable_diffusion_upscale_ldm3d": Recipe(_deep, _deepened),
    "pipeline_animatediff_controlnet": Recipe(_animated, _moving),
    "pipeline_demofusion_sdxl": Recipe(_large_xl, _fused),
    "mixture_tiling": Recipe(call=_tiled),
    "mixture_canvas": Recipe(call=_canvas),
    "stable_diffusion_reference": Recipe(call=_referred),
    "stable_diffusion_xl_reference": Recipe(_xl, _referred),
}
