# SPDX-License-Identifier: Apache-2.0
"""The models that are measured: real sizes, seeded random weights, batch 4, sequence 77 or image 224.

`original(name)` and `ported(name, engine)` make a checkpoint and its ports once, in a cache directory
($PARITAS_BENCH_CACHE), so that every contender loads its own in a process of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

CACHE = Path(os.environ.get("PARITAS_BENCH_CACHE", "~/.cache/paritas/benchmarks")).expanduser()
BATCH, LENGTH = 4, 77

Feed = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Model:
    """One model: its class, its configuration where that differs from the class's own, and what it is fed."""

    title: str
    model_class: str  # below transformers.models
    config_class: str
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    vocabulary: int = 0  # 0: no token ids
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    caches: bool = False  # returns a key-value cache unless it is called with use_cache=False, as ports are

    def feed(self) -> Feed:
        """The same arrays every time. Rows of a batch have different lengths, as sentences have."""
        random = np.random.default_rng(0)
        mask = np.ones((BATCH, LENGTH), np.int64)
        for row, length in enumerate((LENGTH, 60, 33, 9)):
            mask[row, length:] = 0
        made: dict[str, np.ndarray] = {}
        for name in self.inputs:
            if name == "attention_mask":
                made[name] = mask
            elif name == "pixel_values":
                made[name] = random.standard_normal((BATCH, 3, 224, 224), np.float32)
            elif name == "input_features":
                made[name] = random.standard_normal((1, 80, 3000), np.float32)
            else:
                made[name] = random.integers(3, self.vocabulary, (BATCH, LENGTH))
        return made


_LLAMA = {
    "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": 4, "vocab_size": 32000,
}  # fmt: skip
_WHISPER_BASE = {
    "d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8,
    "decoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048,
}  # fmt: skip

MODELS: dict[str, Model] = {
    "clip-text": Model(
        "CLIP ViT-B/32 text, 4 x 77", "clip.modeling_clip.CLIPTextModel", "CLIPTextConfig", vocabulary=49405
    ),
    "clip-vision": Model(
        "CLIP ViT-B/32 vision, 4 x 224",
        "clip.modeling_clip.CLIPVisionModel",
        "CLIPVisionConfig",
        inputs=("pixel_values",),
    ),
    "t5-small": Model(
        "T5-small, 4 x 77 and 4 x 77",
        "t5.modeling_t5.T5ForConditionalGeneration",
        "T5Config",
        {"decoder_start_token_id": 0},
        vocabulary=32000,
        inputs=("input_ids", "attention_mask", "decoder_input_ids"),
        caches=True,
    ),
    "bert-base": Model("BERT-base, 4 x 77", "bert.modeling_bert.BertModel", "BertConfig", vocabulary=30522),
    "vit-base": Model("ViT-B/16, 4 x 224", "vit.modeling_vit.ViTModel", "ViTConfig", inputs=("pixel_values",)),
    "gpt2": Model(
        "GPT-2 small, 4 x 77",
        "gpt2.modeling_gpt2.GPT2LMHeadModel",
        "GPT2Config",
        vocabulary=50257,
        caches=True,
    ),
    "llama": Model(
        "Llama, 6 layers of 512, 4 x 77",
        "llama.modeling_llama.LlamaForCausalLM",
        "LlamaConfig",
        _LLAMA,
        vocabulary=32000,
        caches=True,
    ),
    "whisper": Model(
        "Whisper-base encoder, 1 x 30 s",
        "whisper.modeling_whisper.WhisperEncoder",
        "WhisperConfig",
        _WHISPER_BASE,
        inputs=("input_features",),
    ),
}


def qualified(name: str) -> str:
    return f"transformers.models.{MODELS[name].model_class}"


def original(name: str) -> Path:
    """The checkpoint's directory, made if it is not there."""
    directory = CACHE / name / "original"
    if not (directory / "model.safetensors").is_file():
        _make(name, "original", directory)
    return directory


def ported(name: str, engine: str) -> Path:
    """The port's directory, made again whenever the package that makes it has changed."""
    directory = CACHE / name / f"{engine}-{_version_of_package()}"
    if not (directory / "port.json").is_file():
        original(name)
        for old in directory.parent.glob(f"{engine}-*"):
            shutil.rmtree(old)
        _make(name, engine, directory)
    return directory


@functools.cache
def _version_of_package() -> str:
    import paritas

    digest = hashlib.sha256()
    folder = Path(paritas.__file__).parent
    for part in ("capture", "lower", "program.py", "store"):
        for path in sorted([folder / part] if part.endswith(".py") else (folder / part).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _make(name: str, what: str, directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import models; models.make(*sys.argv[2:])"
    here = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", code, here, name, what, str(directory)], check=True)


def make(name: str, what: str, directory: str) -> None:
    """Make the original or a port, in a process of its own, which takes the memory with it when it ends."""
    import importlib

    import torch
    import transformers

    model = MODELS[name]
    if what != "original":
        import paritas

        feed = {key: torch.from_numpy(value) for key, value in model.feed().items()}
        paritas.port(original(name), what, feed, model_class=qualified(name)).save(directory)
        return
    torch.manual_seed(0)
    module, _, attribute = qualified(name).rpartition(".")
    built = getattr(importlib.import_module(module), attribute)(
        getattr(transformers, model.config_class)(**model.config)
    )
    with torch.no_grad():  # biases and norms start as zeros and ones, and a port that loses them would still be right
        for parameter in built.parameters():
            if parameter.dim() == 1:
                parameter += 0.02 * torch.randn_like(parameter)
    built.save_pretrained(directory)
