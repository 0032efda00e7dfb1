# SPDX-License-Identifier: Apache-2.0
"""A classifier of PyTorch's, trained by a loop of MindSpore's, and back in PyTorch.

python examples/training/native.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import mindspore as ms
import torch
from mindspore import nn
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification

import paritas


def sentences(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [count, 12], and whether the first of them is a large one."""
    ids = torch.randint(2, 120, (count, 12), generator=torch.Generator().manual_seed(seed))
    return ids, (ids[:, 0] > 60).long()


def main(steps: int = 120) -> float:
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(vocab_size=120, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64)
    )
    ids, labels = sentences(256, seed=0)

    port = paritas.port(model, engine="mindspore", train=True, inputs={"input_ids": ids[:8], "labels": labels[:8]})
    net = port.cell.set_train()
    optimizer = nn.Adam(net.trainable_params(), learning_rate=2e-3)

    def forward(ids: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
        loss, _ = net(ids, labels)
        return loss

    grad_fn = ms.value_and_grad(forward, None, optimizer.parameters)

    @ms.jit
    def step(ids, labels):  # type: ignore[no-untyped-def] # compiled from its source
        loss, gradients = grad_fn(ids, labels)
        optimizer(gradients)
        return loss

    for index in range(steps):
        rows = slice(32 * index % 256, 32 * index % 256 + 32)
        loss = step(ms.Tensor(ids[rows].numpy()), ms.Tensor(labels[rows].numpy()))
        if index % 20 == 0:
            print(f"step {index:3d}  loss {float(loss):.4f}")

    # Its weights have PyTorch's names: a file of them is the model's.
    with tempfile.TemporaryDirectory() as folder:
        ms.save_checkpoint(net, str(Path(folder, "model.safetensors")), format="safetensors")
        model.load_state_dict(load_file(Path(folder, "model.safetensors")))
    ids, labels = sentences(256, seed=1)
    with torch.no_grad():
        accuracy = float((model.eval()(ids).logits.argmax(-1) == labels).float().mean())
    print(f"accuracy of held-out sentences, in PyTorch: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
