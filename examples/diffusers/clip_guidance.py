# SPDX-License-Identifier: Apache-2.0
"""Each step goes on towards what a CLIP finds more like the prompt: along a gradient, through the autoencoder.

python examples/diffusers/clip_guidance.py [MODEL] [--engine openvino]

The UNet and the text encoder are the engine's. Gradients through the autoencoder are PyTorch's, as a line says.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from recipe import letters, main, noise

PROMPT = "fantasy book cover, full moon, fantasy forest landscape"


def draw(pipe: Any, steps: int = 20, clip: Any = None) -> Any:
    clip = clip or tiny_clip()
    ids = letters()(PROMPT, return_tensors="pt", truncation=True, max_length=77).input_ids
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(clip.get_text_features(ids).pooler_output, dim=-1)

    def guide(pipe: Any, _step: int, _t: Any, values: dict[str, Any]) -> dict[str, Any]:
        with torch.enable_grad():
            latents = values["latents"].detach().requires_grad_()
            picture = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
            small = torch.nn.functional.interpolate(picture, clip.config.vision_config.image_size, mode="bilinear")
            seen = clip.get_image_features(small).pooler_output
            likeness = (torch.nn.functional.normalize(seen, dim=-1) * wanted).sum()
            (gradient,) = torch.autograd.grad(likeness, latents)
        return {"latents": values["latents"] + 0.1 * gradient / gradient.std()}

    return pipe(PROMPT, num_inference_steps=steps, generator=noise(), callback_on_step_end=guide).images[0]


def tiny_clip() -> Any:
    """A CLIP of random weights; a real one is `CLIPModel.from_pretrained("openai/clip-vit-base-patch32")`."""
    torch.manual_seed(0)
    layers = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**layers, "vocab_size": 514, "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    vision = {**layers, "image_size": 32, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    return transformers.CLIPModel(config).eval()


if __name__ == "__main__":
    main(draw, __doc__ or "")
