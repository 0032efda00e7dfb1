# SPDX-License-Identifier: Apache-2.0
"""What is said is written down, and drawn: a Whisper and a Stable Diffusion, both on the engine.

python examples/diffusers/speech_to_image.py [MODEL] [--engine openvino]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from recipe import main, noise

from paritas.transformers import port_model


def draw(pipe: Any, steps: int = 20, listener: Any = None, audio: Any = None) -> Any:
    """listener: a pipeline of transformers for speech recognition. audio: samples, 16,000 a second."""
    if listener is None:
        listener = tiny_listener()
        if engine := getattr(pipe.unet, "engine", None):
            port_model(listener.model, engine=engine)
    sound = np.sin(np.arange(16000, dtype="float32") * 0.05) if audio is None else audio
    text = listener(sound)["text"]
    return pipe(text, num_inference_steps=steps, generator=noise()).images[0]


def tiny_listener() -> Any:
    """A Whisper of random weights; a real one is `paritas.transformers.pipeline(model="openai/whisper-small")`."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    torch.manual_seed(0)
    special = [
        "<|endoftext|>",
        "<|startoftranscript|>",
        "<|en|>",
        "<|transcribe|>",
        "<|translate|>",
        "<|notimestamps|>",
    ]
    words = {word: index for index, word in enumerate([*bytes_to_unicode().values(), *special])}
    config = transformers.WhisperConfig(
        vocab_size=len(words), num_mel_bins=8, d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
        max_source_positions=50, max_target_positions=24, pad_token_id=256, bos_token_id=256, eos_token_id=256,
        decoder_start_token_id=257, init_std=0.5,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config).eval()
    model.generation_config.update(suppress_tokens=None, begin_suppress_tokens=None, max_length=12)
    return transformers.pipeline(
        "automatic-speech-recognition", model=model, tokenizer=transformers.WhisperTokenizer(vocab=words, merges=[]),
        feature_extractor=transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1),
    )  # fmt: skip


if __name__ == "__main__":
    main(draw, __doc__ or "")
