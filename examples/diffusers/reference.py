# SPDX-License-Identifier: Apache-2.0
"""A picture in the manner of another: attention sees, beside what is drawn, the reference with as much noise.

python examples/diffusers/reference.py [MODEL] [--engine openvino]
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from recipe import main, noise, photo

PROMPT = "a dog"


class SeesReference(AttnProcessor):
    """Of a batch (nothing, prompt, reference), all attend to themselves and to the last."""

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, *_: Any, **__: Any) -> Any:
        last = hidden_states[-1:].expand(hidden_states.shape[0], -1, -1)
        context = torch.cat([hidden_states, last], dim=1)
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        query, key, value = map(attn.head_to_batch_dim, (query, key, value))
        found = attn.batch_to_head_dim(torch.bmm(attn.get_attention_scores(query, key), value))
        return attn.to_out[1](attn.to_out[0](found))


@torch.no_grad()
def draw(pipe: Any, steps: int = 20, scale: float = 7.5) -> Any:
    own = dict(pipe.unet.attn_processors)
    pipe.unet.set_attn_processor({n: SeesReference() if n.endswith("attn1.processor") else p for n, p in own.items()})
    text, empty = pipe.encode_prompt(PROMPT, "cpu", 1, True)
    embeds = torch.cat([empty, text, empty])
    seen = pipe.vae.encode(pipe.image_processor.preprocess(photo(pipe))).latent_dist.sample(noise(1))
    seen = seen * pipe.vae.config.scaling_factor
    pipe.scheduler.set_timesteps(steps)
    latents = torch.randn(seen.shape, generator=noise()) * pipe.scheduler.init_noise_sigma
    blur = torch.randn(seen.shape, generator=noise(2))
    for t in pipe.scheduler.timesteps:
        given = pipe.scheduler.scale_model_input(latents, t)
        reference = pipe.scheduler.scale_model_input(pipe.scheduler.add_noise(seen, blur, t[None]), t)
        free, guided, _ = pipe.unet(torch.cat([given, given, reference]), t, encoder_hidden_states=embeds).sample.split(
            1
        )
        latents = pipe.scheduler.step(free + scale * (guided - free), t, latents).prev_sample
    pipe.unet.set_attn_processor(own)
    decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    return pipe.image_processor.postprocess(decoded)[0]


if __name__ == "__main__":
    main(draw, __doc__ or "")
