# SPDX-License-Identifier: Apache-2.0
"""Prompts with weights, "a (red:1.4) dog", and longer than the text encoder reads: chunk by chunk.

python examples/diffusers/weighted_prompts.py [MODEL] [--engine openvino]

`custom_pipeline="lpw_stable_diffusion"` of diffusers' community knows nested brackets too.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from recipe import main, noise

PROMPT = "a baby (deer:1.3) with (big eyes:1.4) in the (dark:0.7) forest, " * 4
PART = re.compile(r"\(([^()]*):([\d.]+)\)|([^()]+)")


def draw(pipe: Any, steps: int = 20) -> Any:
    wanted, unwanted = encoded(pipe, [PROMPT, "blurry"])
    settings = {"num_inference_steps": steps, "generator": noise()}
    return pipe(prompt_embeds=wanted[None], negative_prompt_embeds=unwanted[None], **settings).images[0]


@torch.no_grad()
def encoded(pipe: Any, prompts: list[str]) -> list[torch.Tensor]:
    """Embeddings of prompts, equally long: each token's multiplied by its weight, the mean of all as before."""
    read = [weighted(pipe, prompt) for prompt in prompts]
    room = pipe.tokenizer.model_max_length - 2
    chunks = max(-(-len(tokens) // room) for tokens, _ in read)
    start, end = pipe.tokenizer.bos_token_id, pipe.tokenizer.eos_token_id
    found = []
    for tokens, weights in read:
        missing = chunks * room - len(tokens)
        ids = torch.tensor(tokens + [end] * missing).reshape(chunks, room)
        factors = torch.tensor(weights + [1.0] * missing).reshape(chunks, room)
        ids = torch.nn.functional.pad(torch.nn.functional.pad(ids, (1, 0), value=start), (0, 1), value=end)
        states = torch.cat([pipe.text_encoder(one[None])[0] for one in ids])
        scaled = states * torch.nn.functional.pad(factors, (1, 1), value=1.0)[..., None]
        scaled *= states.abs().mean() / scaled.abs().mean()
        found.append(scaled.flatten(0, 1))
    return found


def weighted(pipe: Any, prompt: str) -> tuple[list[int], list[float]]:
    """The tokens of a prompt, and the weight of each."""
    tokens: list[int] = []
    weights: list[float] = []
    for inside, weight, plain in PART.findall(prompt):
        ids = pipe.tokenizer(inside or plain, add_special_tokens=False).input_ids
        tokens += ids
        weights += [float(weight or 1)] * len(ids)
    return tokens, weights


if __name__ == "__main__":
    main(draw, __doc__ or "")
