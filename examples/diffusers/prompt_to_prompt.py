# SPDX-License-Identifier: Apache-2.0
"""A prompt is changed and the picture stays as it is composed: the second looks where the first one does.

python examples/diffusers/prompt_to_prompt.py [MODEL] [--engine openvino]

In the first steps the attention of the changed prompt is the first one's. Another processor is another graph, so that
there are two ports of the UNet, each for its steps.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from recipe import main, noise

PROMPTS = ["a red dog on a horse", "a red cat on a horse"]


class AsTheFirst(AttnProcessor):
    """Of a batch (nothing, nothing, first prompt, second prompt), the last attends as the third does."""

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, *_: Any, **__: Any) -> Any:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        query, key, value = map(attn.head_to_batch_dim, (query, key, value))
        weights = attn.get_attention_scores(query, key)
        first = weights.chunk(4)
        weights = torch.cat([first[0], first[1], first[2], first[2]])
        found = attn.batch_to_head_dim(torch.bmm(weights, value))
        return attn.to_out[1](attn.to_out[0](found))


def draw(pipe: Any, steps: int = 20, share: float = 0.6) -> Any:
    own = dict(pipe.unet.attn_processors)
    pipe.unet.set_attn_processor({n: AsTheFirst() if n.endswith("attn2.processor") else p for n, p in own.items()})

    def release(pipe: Any, step: int, _t: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step + 1 == round(share * steps):
            pipe.unet.set_attn_processor(dict(own))
        return values

    size = (pipe.unet.config.sample_size,) * 2
    latents = torch.randn(1, 4, *size, generator=noise()).repeat(2, 1, 1, 1)
    return pipe(PROMPTS, latents=latents, num_inference_steps=steps, callback_on_step_end=release).images


if __name__ == "__main__":
    main(draw, __doc__ or "")
