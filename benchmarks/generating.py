# SPDX-License-Identifier: Apache-2.0
"""Tokens per second of a server of texts, by the number of clients: batched in pages, and one text after the other.

    python benchmarks/generating.py --clients 1,4,16 --out generating.jsonl

The model is a Llama of random weights, of 12 layers and a width of 512 unless told otherwise. Both ways are asked for
the same texts in turns, greedily, and `same` says how many of them are equal to the token.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def model(directory: Path, layers: int, width: int) -> Path:
    """The port of a Llama with a tokenizer of bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    import paritas

    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    raw = Tokenizer(models.BPE(letters, []))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=raw).save_pretrained(directory / "original")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(letters), hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64,
        num_key_value_heads=max(1, width // 256), intermediate_size=width * 3, max_position_embeddings=1024,
        eos_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory / "original")
    paritas.port(directory / "original").save(directory / "port")
    return directory / "port"


def measured(generator: Any, clients: int, texts: int, tokens: int) -> tuple[float, list[list[int]]]:
    """(tokens per second, the texts), of so many clients who ask one text after the other."""
    from paritas.serve.generation import Wanted

    def ask(number: int) -> list[int]:
        ids = tuple(generator.tokens(f"Text {number}: once upon a time there was a server"))
        found: list[int] = generator.write(Wanted(ids, tokens, temperature=0.0))[0]
        return found

    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as crowd:
        written = list(crowd.map(ask, range(texts)))
    return sum(map(len, written)) / (time.perf_counter() - begun), written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="1,4,16")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()

    import paritas
    from paritas import texts
    from paritas.serve.generation import Generator, InTurn, open_generator

    with tempfile.TemporaryDirectory() as place:
        port = model(Path(place), given.layers, given.width)
        pages = open_generator(paritas.load(port), "pages", context=512, longest=256)
        turns = Generator(port, "turns", InTurn(texts.Writer(paritas.load(port))), context=512, longest=256, queue=256)
        print(f"load {os.getloadavg()[0]:.1f}; {pages.writes.how}")
        for clients in map(int, given.clients.split(",")):
            for round_ in range(given.rounds):
                row: dict[str, Any] = {"clients": clients, "round": round_, "load": round(os.getloadavg()[0], 1)}
                found = {}
                for name, generator in (("pages", pages), ("turns", turns)):
                    row[name], found[name] = measured(generator, clients, 2 * clients, given.tokens)
                same = sum(a == b for a, b in zip(found["pages"], found["turns"], strict=True))
                row |= {"texts": 2 * clients, "same": same, "times": row["pages"] / row["turns"]}
                print({name: round(value, 2) if isinstance(value, float) else value for name, value in row.items()})
                if given.out:
                    with given.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
        pages.close()
        turns.close()


if __name__ == "__main__":
    main()
