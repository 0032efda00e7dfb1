# SPDX-License-Identifier: Apache-2.0
"""Small models of ten architectures, as ports on disk, for faults to be planted into."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from paritas.program import Program
from paritas.run.torch.session import TorchSession
from paritas.verify.nodes import Lockstep, compare_nodes
from paritas.verify.of_port import nodes_of

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
TEXT = {"vocab_size": 99, **SIZES}
IMAGE = {"image_size": 16, "patch_size": 4, **SIZES}

MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "bert": lambda: hf.BertModel(hf.BertConfig(**TEXT)),
    "gpt2": lambda: hf.GPT2Model(hf.GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4)),
    "llama": lambda: hf.LlamaModel(hf.LlamaConfig(**TEXT, num_key_value_heads=2)),
    "t5": lambda: hf.T5EncoderModel(
        hf.T5Config(vocab_size=99, num_layers=2, d_model=32, d_ff=48, d_kv=8, num_heads=4)
    ),
    "vit": lambda: hf.ViTModel(hf.ViTConfig(**IMAGE)),
    "clip": lambda: hf.CLIPTextModel(hf.CLIPTextConfig(**TEXT, eos_token_id=98)),
    "resnet": lambda: hf.ResNetModel(hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])),
    "whisper": lambda: hf.models.whisper.modeling_whisper.WhisperEncoder(
        hf.WhisperConfig(
            d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=48, max_source_positions=30,
            num_mel_bins=8,
        )
    ),
    "roberta": lambda: hf.RobertaModel(hf.RobertaConfig(**TEXT)),
    "mixtral": lambda: hf.MixtralModel(
        hf.MixtralConfig(**TEXT, num_key_value_heads=2, num_local_experts=4)
    ),
}  # fmt: skip


#: Tried every day; the others with the long sweeps.
DAILY = ("bert", "resnet")


def marked(name: str, *values: Any, label: str) -> Any:
    return pytest.param(name, *values, id=label, marks=() if name in DAILY else pytest.mark.slow)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A port on disk, and what its nodes are compared with."""

    directory: Path
    program: Program
    feed: dict[str, np.ndarray]

    def lockstep(self, session: Any) -> Lockstep:
        reference, truth = TorchSession(self.program, "float32"), TorchSession(self.program, "float64")
        return compare_nodes(session, reference, truth, self.feed, nodes_of(self.program))


@functools.cache
def original(name: str) -> torch.nn.Module:
    return uneven(MODELS[name])


def uneven(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """A seeded model with noise on what starts as zeros and ones, or a forgotten one would not show."""
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor += 0.1 * torch.rand_like(tensor)
    return model


def feed_of(port: Any) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    feed = {}
    for spec in port.inputs:
        shape = tuple(size if isinstance(size, int) else 2 if axis == 0 else 12 for axis, size in enumerate(spec.dims))
        if spec.name == "attention_mask":
            feed[spec.name] = np.ones(shape, np.int64)
            feed[spec.name][0, :3] = 0
        elif spec.dtype == "int64":
            high = 2 if spec.name == "token_type_ids" else 90
            feed[spec.name] = generator.integers(0 if high == 2 else 5, high, shape)
            if high > 2:
                feed[spec.name][:, -1] = 98  # the last of the vocabulary, which ends a text of CLIP's
        else:
            shape = tuple(32 if size == 12 else size for size in shape)  # pixels
            feed[spec.name] = generator.standard_normal(shape).astype(np.float32)
    return feed
