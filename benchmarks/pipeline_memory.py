# SPDX-License-Identifier: Apache-2.0
"""How much memory does it take to port a pipeline and to draw with it? A process's peak, beside the weights.

    python benchmarks/pipeline_memory.py [--engine openvino] [--write]

A Stable Diffusion of random weights, of 1.2 GiB, draws a picture of 256 pixels in two steps: loaded by
`paritas.diffusers` from a directory, ported in memory by `port(pipe)`, with `low_memory=True`, and in PyTorch. Each is
a process of its own. The bar of a port is 1.3 times the weights and 1 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import results
from contender import peak

SIZE, STEPS = 256, 2

WAYS = {
    "torch": "PyTorch",
    "from_pretrained": "from_pretrained(DIR, engine=)",
    "port": "port(pipe), whose weights are in memory",
    "low_memory": "port(pipe, low_memory=True)",
}


def made() -> Any:
    """The pipeline, in memory."""
    import diffusers
    import torch
    import transformers

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "diffusers"))
    import tiny_pipelines

    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=SIZE // 8, block_out_channels=(160, 320, 640, 640), cross_attention_dim=768, attention_head_dim=8
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), latent_channels=4, layers_per_block=2, sample_size=SIZE,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    config = transformers.CLIPTextConfig(
        vocab_size=514, hidden_size=768, intermediate_size=3072, num_hidden_layers=6, num_attention_heads=12,
        max_position_embeddings=12, bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    parts = {**tiny_pipelines.parts(), "unet": unet.eval(), "vae": vae.eval()}
    parts["text_encoder"] = transformers.CLIPTextModel(config).eval()
    return diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)


def one(way: str, directory: str, engine: str) -> dict[str, float]:
    """A process: what it took until a picture was there."""
    import diffusers
    import torch

    import paritas.diffusers as ours

    if way == "save":
        made().save_pretrained(directory)
        return {}
    start = time.perf_counter()
    if way == "from_pretrained":
        pipe = ours.DiffusionPipeline.from_pretrained(directory, engine=engine)
    elif way == "torch":
        pipe = diffusers.DiffusionPipeline.from_pretrained(directory)
    else:
        pipe = ours.port(made(), engine=engine, low_memory=way == "low_memory")
    pipe.set_progress_bar_config(disable=True)
    pipe("a red circle", height=SIZE, width=SIZE, num_inference_steps=STEPS, generator=torch.Generator().manual_seed(0))
    first = time.perf_counter() - start
    weights = sum(p.nbytes for m in (pipe.unet, pipe.vae, pipe.text_encoder) for p in m.parameters())
    return {"peak": peak() / 2**30, "weights": weights / 2**30, "seconds": first}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--write", action="store_true", help="into benchmarks/results")
    parser.add_argument("--only", choices=WAYS, nargs="*", default=list(WAYS))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(*given.one, given.engine)))
        return
    rows = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        subprocess.run([sys.executable, __file__, "--one", "save", folder], check=True)
        for way in given.only:
            command = [sys.executable, __file__, "--engine", given.engine, "--one", way, folder]
            environment = {**os.environ, "PARITAS_CACHE": ""}
            said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
            row = rows[way] = json.loads(said.splitlines()[-1])
            bar = 1.3 * row["weights"] + 1
            print(f"{WAYS[way]:44}{row['peak']:6.2f} GiB of {bar:.2f}{row['seconds']:8.1f} s", flush=True)
    if given.write:
        print(results.write(f"pipeline_memory_{given.engine}", {"rows": rows}))


if __name__ == "__main__":
    main()
