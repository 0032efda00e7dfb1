# SPDX-License-Identifier: Apache-2.0
"""How long does it take to transcribe 30 seconds? A Whisper of the small one's size, random weights, batch 1.

    python benchmarks/transcription.py
    python benchmarks/transcription.py --rounds 3 --contenders "torch eager" "openvino bfloat16"

12 encoder and 12 decoder layers of width 768, 3000 frames of 80 frequencies in, exactly 128 tokens out, so that every
contender does the same work. Every contender is a process of its own, and they take turns: a warm-up each, then
`--rounds` transcriptions, medians. The first token is there when the encoder and one step of the decoder are done.
Tokens are compared with PyTorch's: those of random weights have close rivals, so fewer digits mean other tokens soon.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contender import answer
from results import write
from turns import Clock, compared, load, parser, table, take_turns

NEW = 128

#: name -> (engine, dtype, weights); no engine is transformers itself.
CONTENDERS = {
    "torch eager": ("", "float32", ""),
    "openvino float32": ("openvino", "float32", ""),
    "openvino bfloat16": ("openvino", "bfloat16", ""),
    "openvino int8": ("openvino", "float32", "int8"),
}


def main() -> int:
    options = parser(__doc__, CONTENDERS, rounds=5).parse_args()
    if options.serve:
        name, directory = options.serve
        return answer(lambda: prepare(name, directory))
    with tempfile.TemporaryDirectory() as directory:
        make(Path(directory))
        figures = take_turns(__file__, options.contenders, directory, options.rounds)
    rows = compared(figures)
    print(table(f"Whisper, 12 + 12 layers of 768, 30 s of sound, {NEW} new tokens, batch 1", rows, NEW))
    write("transcription", {"new": NEW, "contenders": rows})
    return 0


def make(directory: Path) -> None:
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=768, encoder_layers=12, decoder_layers=12, encoder_attention_heads=12, decoder_attention_heads=12,
        encoder_ffn_dim=3072, decoder_ffn_dim=3072, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    # As it begins, every token has nearly the same state: places that differ more let the tokens differ.
    model.model.decoder.embed_positions.weight.data.normal_(0, 0.5)
    # The end has an embedding of zeros, and so a logit of zero, which is never the largest.
    model.save_pretrained(directory)


def prepare(name: str, directory: str) -> Callable[[Any], dict[str, Any]]:
    """What transcribes once each time it is called."""
    import torch

    engine, dtype, weights = CONTENDERS[name]
    model = load("WhisperForConditionalGeneration", directory, engine, dtype, weights)
    sound = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))

    def transcribe(_: Any) -> dict[str, Any]:
        clock = Clock()
        start = time.perf_counter()
        out = model.generate(sound, max_new_tokens=NEW, do_sample=False, streamer=clock)
        seconds = time.perf_counter() - start
        assert len(clock.times) > NEW, "it ended early"
        return {"seconds": seconds, "first": clock.times[1] - start, "tokens": out[0, -NEW:].tolist()}

    return transcribe


if __name__ == "__main__":
    sys.exit(main())
