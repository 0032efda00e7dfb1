# SPDX-License-Identifier: Apache-2.0
"""Gradients at the sizes that layers really have, and long curves, on PyTorch and on MindSpore.

    python benchmarks/training_layers.py [--models bert gpt2 ...] [--steps 200] [--write]

One or two layers of each model, of the width, heads and vocabulary of its base size. Gradients of one step, dropout and
all, are compared with float64's, parameter by parameter: the largest error over the largest element, and PyTorch's own
beside it. Then both are trained from there, by AdamW with clipping: the largest distance of two losses of a step. Each
model is a process of its own.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import results

#: A gradient that is 0 but for rounding is judged by the largest of all.
ROUNDING = 1e-7


def _ids(generator: Any, *shape: int, high: int = 30000) -> Any:
    import torch

    return torch.randint(5, high, shape, generator=generator)


def bert(T: Any, generator: Any) -> tuple[Any, dict[str, Any]]:
    ids = _ids(generator, 2, 64)
    model = T.BertForSequenceClassification(T.BertConfig(num_hidden_layers=2, num_labels=3))
    return model, {"input_ids": ids, "labels": ids[:, 0] % 3}


def gpt2(T: Any, generator: Any) -> tuple[Any, dict[str, Any]]:
    ids = _ids(generator, 2, 64)
    return T.GPT2LMHeadModel(T.GPT2Config(n_layer=2)), {"input_ids": ids, "labels": ids}


def t5(T: Any, generator: Any) -> tuple[Any, dict[str, Any]]:
    config = T.T5Config(d_model=768, d_ff=3072, num_heads=12, num_layers=1, decoder_start_token_id=0)
    model = T.T5ForConditionalGeneration(config)
    return model, {"input_ids": _ids(generator, 2, 48), "labels": _ids(generator, 2, 24)}


def vit(T: Any, generator: Any) -> tuple[Any, dict[str, Any]]:
    import torch

    config = T.ViTConfig(num_hidden_layers=2, num_labels=5, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    pixels = torch.randn(2, 3, 224, 224, generator=generator)
    return T.ViTForImageClassification(config), {"pixel_values": pixels, "labels": torch.tensor([1, 4])}


def clip(T: Any, generator: Any) -> tuple[Any, dict[str, Any]]:
    import torch

    config = T.CLIPConfig(text_config={"num_hidden_layers": 2}, vision_config={"num_hidden_layers": 2})
    pixels = torch.randn(3, 3, 224, 224, generator=generator)
    return T.CLIPModel(config), {"input_ids": _ids(generator, 3, 32), "pixel_values": pixels, "return_loss": True}


def llama(T: Any, generator: Any) -> tuple[Any, dict[str, Any]]:
    ids = _ids(generator, 2, 48)
    config = T.LlamaConfig(
        hidden_size=2048, intermediate_size=5632, num_attention_heads=32, num_key_value_heads=4, num_hidden_layers=1,
        vocab_size=32000, attention_dropout=0.1,
    )  # fmt: skip
    return T.LlamaForCausalLM(config), {"input_ids": ids, "labels": ids}


def unet(T: Any, generator: Any) -> tuple[Any, dict[str, Any]]:
    import diffusers
    import torch

    model = diffusers.UNet2DModel(
        sample_size=32, block_out_channels=(320,), layers_per_block=1, norm_num_groups=32, attention_head_dim=8,
        down_block_types=("AttnDownBlock2D",), up_block_types=("AttnUpBlock2D",), dropout=0.1,
    )  # fmt: skip
    given = {"sample": torch.randn(1, 3, 32, 32, generator=generator), "timestep": _ids(generator, 1, high=1000)}
    return model, given


MODELS: dict[str, Callable[[Any, Any], tuple[Any, dict[str, Any]]]] = {
    made.__name__: made for made in (bert, gpt2, t5, vit, clip, llama, unet)
}


def _loss(model: Any, batch: dict[str, Any]) -> Any:
    out = model(**batch)
    return out.loss if "loss" in out else (out.sample - 0.5).pow(2).mean()


def _gradients(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    import torch

    torch.manual_seed(7)
    _loss(model, batch).backward()
    return {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}


def _curve(model: Any, batch: dict[str, Any], steps: int) -> list[float]:
    import torch

    model.zero_grad()
    torch.manual_seed(7)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-4), []
    for _ in range(steps):
        loss = _loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def one(name: str, steps: int, threads: int) -> dict[str, Any]:
    import torch
    import transformers

    import paritas

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, batch = MODELS[name](transformers, torch.Generator().manual_seed(0))
    model.train()
    begun = time.perf_counter()
    wide = {k: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in batch.items()}
    truth = _gradients(copy.deepcopy(model).double(), wide)
    ported = paritas.trainable(copy.deepcopy(model))
    found = {"torch": _gradients(model, batch), "mindspore": _gradients(ported, batch)}
    largest = max(float(true.abs().max()) for true in truth.values())
    row: dict[str, Any] = {"parameters": len(truth)}
    for side, gradients in found.items():
        assert gradients.keys() == truth.keys(), side
        shares = {}
        for parameter, true in truth.items():
            error = float((gradients[parameter] - true).abs().max())
            shares[parameter] = error / max(float(true.abs().max()), ROUNDING / 1e-5 * largest)
        worst = max(shares, key=shares.__getitem__)
        row[side] = {"gradient": shares[worst], "whose": worst}
    del truth, found
    if steps:
        want, got = _curve(model, batch, steps), _curve(ported, batch, steps)
        row["steps"] = steps
        row["curve"] = max(abs(a - b) / abs(a) for a, b in zip(want, got, strict=True))
        row["losses"] = [want[0], want[-1]]
    return {**row, "seconds": round(time.perf_counter() - begun, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--steps", type=int, default=200, help="of the curves; 0 for gradients alone")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="into benchmarks/results")
    parser.add_argument("--one", choices=MODELS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.steps, given.threads)))
        return
    rows: dict[str, Any] = {}
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads), "GLOG_v": "4"}
    for name in given.models:
        how = ["--one", name, "--steps", str(given.steps), "--threads", str(given.threads)]
        done = subprocess.run(
            [sys.executable, __file__, *how], capture_output=True, text=True, env=environment, check=False
        )
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, json.dumps(rows[name]), flush=True)
    print("| | gradients, worst parameter | PyTorch's own | losses, furthest from PyTorch's |")
    print("|---|---|---|---|")
    for name, row in rows.items():
        curve = f"{row['curve']:.1e} in {row['steps']} steps" if "curve" in row else ""
        print(f"| {name} | {row['mindspore']['gradient']:.1e} | {row['torch']['gradient']:.1e} | {curve} |")
    if given.write:
        print(results.write("training_layers", {"threads": given.threads, "rows": rows}))


if __name__ == "__main__":
    main()
