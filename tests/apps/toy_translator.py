# SPDX-License-Identifier: Apache-2.0
"""A language of syllables, its translation word for word, a tiny FSMT that learns it, and fairseq's files of it."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import torch
import transformers as hf

#: A syllable of one language and of the other: "ba" is "mo", so that "baki dulo" is "mope sani".
SYLLABLES = dict(
    zip(
        ("ba", "ki", "du", "lo", "ge", "fa", "ti", "zu"),
        ("mo", "pe", "sa", "ni", "hu", "ra", "ve", "wo"),
        strict=True,
    )
)
#: Those of both, where the languages share a vocabulary.
ALL = (*SYLLABLES, *SYLLABLES.values())

SIZES = {
    "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
}  # fmt: skip

#: fairseq's norms of a layer in the order of its parts.
NORMS = {
    "encoder": ["self_attn_layer_norm", "final_layer_norm"],
    "decoder": ["self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"],
}


def translated(sentence: str) -> str:
    return "".join(SYLLABLES.get(sentence[i : i + 2], " ") for i in _starts(sentence))


def _starts(sentence: str) -> list[int]:
    found, i = [], 0
    while i < len(sentence):
        found.append(i)
        i += 1 if sentence[i] == " " else 2
    return found


def sentences(count: int, seed: int) -> list[str]:
    """Sentences of three to six words of one or two syllables."""
    chosen = random.Random(seed)
    return [
        " ".join("".join(chosen.choices(list(SYLLABLES), k=chosen.randint(1, 2))) for _ in range(chosen.randint(3, 6)))
        for _ in range(count)
    ]


def dictionary(syllables: tuple[str, ...]) -> str:
    """dict.<lang>.txt: each syllable inside a word and at its end, with a count; padded as fairseq does."""
    words = [f"{syllable}{mark}" for syllable in syllables for mark in ("@@", "")]
    return "".join(f"{word} {1000 - i}\n" for i, word in enumerate([*words, "madeupword0000"]))


def codes() -> str:
    return "".join(f"{s[0]} {s[1]}{end} 99\n" for s in ALL for end in ("</w>", ""))


def vocabulary_size(syllables: tuple[str, ...]) -> int:
    return 4 + 2 * len(syllables) + 1


def model(merged: bool = False, width: int = 32, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    size = vocabulary_size(ALL if merged else tuple(SYLLABLES))
    config = hf.FSMTConfig(
        langs=["en", "de"], src_vocab_size=size, tgt_vocab_size=size, d_model=width, encoder_ffn_dim=2 * width,
        decoder_ffn_dim=2 * width, dropout=0.0, max_position_embeddings=64, tie_word_embeddings=merged,
        init_std=width**-0.5, **SIZES,
    )  # fmt: skip
    made = hf.FSMTForConditionalGeneration(config)
    for value in made.parameters():  # so that no weight is a round number, which would hide a mistake
        if value.requires_grad and value.dim() == 1:
            torch.nn.init.normal_(value, mean=float(value.detach().mean()), std=0.01)
    return made.eval()


def state(original: Any, *, old: bool = False, prefix: str = "") -> dict[str, torch.Tensor]:
    """The weights of an FSMT as fairseq saves them; old: as it did before queries, keys and values were apart."""
    found: dict[str, torch.Tensor] = {}
    apart: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in original.state_dict().items():
        name, value = name.removeprefix("model."), value.clone()
        head, _, last = name.rpartition(".")
        part = head.rpartition(".")[2]
        if "embed_positions" in name:
            continue
        if old and part in ("q_proj", "k_proj", "v_proj"):
            apart.setdefault(f"{head.rpartition('.')[0]}.in_proj_{last}", {})[part[0]] = value
        elif old and part.endswith("layer_norm"):
            side = name.partition(".")[0]
            found[f"{head.rpartition('.')[0]}.layer_norms.{NORMS[side].index(part)}.{last}"] = value
        else:
            found[name] = value
    found |= {name: torch.cat([parts[k] for k in "qkv"]) for name, parts in apart.items()}
    for side in ("encoder", "decoder"):
        found[f"{side}.version"] = torch.tensor([3.0])
        found[f"{side}.embed_positions._float_tensor"] = torch.zeros(1)
    return found


def settings(original: Any, **more: Any) -> argparse.Namespace:
    """`args` as fairseq saves them."""
    config = original.config
    return argparse.Namespace(
        **{
            "arch": "transformer_wmt_en_de_big", "activation_fn": "relu", "dropout": 0.1, "attention_dropout": 0.1,
            "activation_dropout": 0.0, "source_lang": "en", "target_lang": "de",
            "encoder_embed_dim": config.d_model, "decoder_embed_dim": config.d_model,
            "encoder_ffn_embed_dim": config.encoder_ffn_dim, "decoder_ffn_embed_dim": config.decoder_ffn_dim,
            "max_source_positions": 64, "max_target_positions": 64, "adaptive_softmax_cutoff": None,
            "encoder_normalize_before": False, "share_all_embeddings": config.tie_word_embeddings,
            "share_decoder_input_output_embed": config.tie_word_embeddings, "adam_betas": "(0.9, 0.98)",
            **SIZES, **more,
        }
    )  # fmt: skip


def write(directory: Path, original: Any, *, name: str = "model.pt", old: bool = False, **more: Any) -> Path:
    """A directory as those of wmt19: a checkpoint with its optimizer, dictionaries and codes."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = state(original, old=old)
    checkpoint = {
        "args": settings(original, **more),
        "model": weights,
        "optimizer_history": [{"num_updates": 3, "lr_scheduler_state": {"best": 1.5}}],
        "extra_state": {"epoch": 3, "val_loss": 1.5},
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.zeros(1000)}}},
    }
    torch.save(checkpoint, directory / name, _use_new_zipfile_serialization=not old)
    merged = original.config.tie_word_embeddings
    for language, syllables in (("en", tuple(SYLLABLES)), ("de", tuple(SYLLABLES.values()))):
        (directory / f"dict.{language}.txt").write_text(dictionary(ALL if merged else syllables))
    (directory / "bpecodes").write_text(codes())
    return directory


def train(original: Any, tokenizer: Any, steps: int = 120, batch: int = 48) -> Any:
    """Teach it the translation, in a few seconds."""
    target = {token: index for index, token in tokenizer.decoder.items()}

    def ids(words: str) -> list[int]:
        return [target[piece] for word in words.split() for piece in tokenizer.bpe(word).split(" ")] + [2]

    lines = sentences(2000, seed=1)
    sources = [tokenizer(line)["input_ids"] for line in lines]
    targets = [ids(translated(line)) for line in lines]
    optimizer = torch.optim.Adam([p for p in original.parameters() if p.requires_grad], lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    chosen = random.Random(2)
    original.train()
    for _ in range(steps):
        picked = chosen.sample(range(len(lines)), batch)
        given, wanted = (_padded([found[i] for i in picked]) for found in (sources, targets))
        before = torch.cat([torch.full((batch, 1), 2), wanted[:, :-1]], dim=1)
        logits = original(
            input_ids=given, attention_mask=(given != 1).long(), decoder_input_ids=before, use_cache=False
        ).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return original.eval()


def _padded(rows: list[list[int]]) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [1] * (longest - len(row)) for row in rows])
