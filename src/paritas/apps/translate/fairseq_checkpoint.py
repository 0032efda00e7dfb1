# SPDX-License-Identifier: Apache-2.0
"""What lies in a directory of fairseq's: checkpoints, dictionaries and BPE codes, read without executing anything."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from paritas.capture.checkpoint import listing
from paritas.errors import SourceError, first_line

#: The symbols that fairseq puts before those of the file, in their order.
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")

#: Names that fairseq has given the BPE codes.
CODES = ("bpecodes", "code")

#: Parts of a state that no network needs: versions of the format, and weights that are computed.
_IGNORED = re.compile(
    r"(model|(encoder|decoder)_embed_tokens\.weight"
    r"|(encoder|decoder)\.(version|embed_positions\.(_float_tensor|weights)))"
)

#: Ends a line whose word is to take the place of an earlier one.
_OVERWRITE = " #fairseq:overwrite"


class _Meter:
    """What becomes of a stopwatch of fairseq's: an object that holds its numbers, has no code, and is dropped."""


#: What is unpickled beside tensors and plain values. fairseq leaves its meters of the training among them.
_SAFE: list[Any] = [
    argparse.Namespace,
    *(
        (_Meter, f"{module}.{name}Meter")
        for module in ("fairseq.meters", "fairseq.logging.meters")
        for name in ("Average", "Time", "Stopwatch")
    ),
]

_LAYER_NORMS = {
    "encoder": ("self_attn_layer_norm", "final_layer_norm"),
    "decoder": ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
}


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints of a directory: model*.pt and checkpoint*.pt, model2.pt before model10.pt."""

    def order(path: Path) -> list[Any]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]

    if not directory.is_dir():
        raise SourceError(f"There is no directory {directory}.")
    found = [path for pattern in ("model*.pt", "checkpoint*.pt") for path in directory.glob(pattern)]
    if not found:
        raise SourceError(
            f"{directory} has no model*.pt or checkpoint*.pt, so it is no checkpoint of fairseq's. "
            f"It holds: {listing(directory)}."
        )
    return sorted(found, key=order)


def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], list[str]]:
    """A checkpoint: its settings, its weights by name, and what else is in it.

    Only tensors, plain values and `argparse.Namespace` are unpickled, and fairseq's meters as mere dictionaries.
    Raises `SourceError`.
    """
    # Tensors of a zip are mapped: those of the optimizer, two thirds of the file, are never read.
    mapped = path.is_file() and zipfile.is_zipfile(path)
    try:
        with torch.serialization.safe_globals(_SAFE):
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped or None)
    except FileNotFoundError:
        raise SourceError(f"There is no file {path}.") from None
    except Exception as error:
        raise SourceError(_unreadable(path, error)) from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise SourceError(f"{path} is no checkpoint of fairseq's: it has no dictionary 'model' of weights.")
    wrong = [name for name, value in state["model"].items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise SourceError(f"{path}: model[{wrong[0]!r}] is not a tensor.")
    others = [name for name in state if name not in ("model", "args", "cfg")]
    return _settings(state, path), dict(state["model"]), others


def _unreadable(path: Path, error: Exception) -> str:
    refused = set(re.findall(r"GLOBAL (\S+) was not", str(error)))
    if not refused:
        return f"{path} cannot be read, so it is damaged or no checkpoint of PyTorch's: {first_line(error)[:200]}"
    if zipfile.is_zipfile(path):
        with torch.serialization.safe_globals(_SAFE):
            refused |= set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    return (
        f"{path} holds objects that are not unpickled, because they can run code: {', '.join(sorted(refused))}.\n"
        "Only tensors, plain values and argparse.Namespace are. If you trust the file, write one without them "
        "where fairseq is installed, and convert that with --checkpoint weights.pt:\n"
        f"  state = torch.load({path.name!r}, weights_only=False)\n"
        "  torch.save({name: state[name] for name in ('args', 'model')}, 'weights.pt')"
    )


def _settings(state: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What the model was trained with: `args`, or the sections of the newer `cfg`."""
    if isinstance(args := state.get("args"), (argparse.Namespace, dict)):
        return dict(_plain(args))
    if isinstance(cfg := state.get("cfg"), (argparse.Namespace, dict)):
        sections = _plain(cfg)
        found: dict[str, Any] = {}
        for name in ("task", "model"):  # the model's own last: only it says what its layers are
            if isinstance(section := sections.get(name), (argparse.Namespace, dict)):
                found |= _plain(section)
        for name in ("bpe", "tokenizer"):
            if isinstance(section := sections.get(name), (argparse.Namespace, dict)):
                found[name] = _plain(section).get("_name")
        return found
    raise SourceError(f"{path} does not say how its model was made: it has neither 'args' nor 'cfg'.")


def _plain(value: argparse.Namespace | dict[str, Any]) -> dict[str, Any]:
    return value if isinstance(value, dict) else vars(value)


# --- weights -------------------------------------------------------------------------------------------------


def renamed(weights: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Weights under the names of transformers' FSMT, as they are, and the names of those left out.

    `in_proj_weight` of shape [3 * width, width] and `in_proj_bias` are those of queries, keys and values, in this
    order; `layer_norms.N` are the norms of a layer in the order of its parts.
    """
    found: dict[str, torch.Tensor] = {}
    left_out = []
    for name, value in weights.items():
        if _IGNORED.fullmatch(name):
            left_out.append(name)
        else:
            found |= dict(_renamed(name, value))
    return found, left_out


def _renamed(name: str, value: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    if name == "decoder.embed_out":  # a plain parameter, before there was an output_projection
        name = "decoder.output_projection.weight"
    if match := re.fullmatch(r"((encoder|decoder)\.layers\.\d+)\.layer_norms\.(\d)\.(weight|bias)", name):
        layer, side, index, kind = match.groups()
        if int(index) < len(_LAYER_NORMS[side]):
            name = f"{layer}.{_LAYER_NORMS[side][int(index)]}.{kind}"
    head, dot, last = name.rpartition(".")
    if last in ("in_proj_weight", "in_proj_bias") and len(value) % 3 == 0:
        for part, third in zip("qkv", value.chunk(3), strict=True):
            yield f"model.{head}.{part}_proj.{last.removeprefix('in_proj_')}", third
    else:
        yield f"model.{head}{dot}{last}", value


def averaged(states: list[dict[str, torch.Tensor]], paths: list[Path]) -> dict[str, torch.Tensor]:
    """The mean of every weight over several checkpoints, summed in float64, as float32. Raises `SourceError`."""
    first = {name: value.shape for name, value in states[0].items()}
    for state, path in zip(states[1:], paths[1:], strict=True):
        for name in sorted({*first, *state}):
            if name not in first or name not in state or first[name] != state[name].shape:
                raise SourceError(
                    f"{path} cannot be averaged with {paths[0].name}: {name.removeprefix('model.')} is not the "
                    "same in both. Average checkpoints of one training only."
                )
    return {
        name: (sum(state[name].double() for state in states) / len(states)).float()  # type: ignore[union-attr]
        for name in first
    }


# --- vocabularies --------------------------------------------------------------------------------------------


def vocabulary(path: Path) -> tuple[dict[str, int], int]:
    """A dictionary of fairseq's, dict.<lang>.txt, for transformers: ids by token, and how many ids there are.

    fairseq marks what does not end a word, as in "le@@", transformers what does, as in "er</w>". The file's numbers
    are counts: an id is the place in the file, after four special symbols. Raises `SourceError`.
    """
    words: dict[str, int] = {}
    size = len(SPECIAL)
    for number, line in enumerate(_lines(path), 1):
        entry = line.rstrip()
        word, space, count = entry.removesuffix(_OVERWRITE).rpartition(" ")
        if not space or not count.lstrip("-").isdigit():
            raise SourceError(f"{path}, line {number}: {line[:60]!r} is no word with its count.")
        if (word in words or word in SPECIAL) and not entry.endswith(_OVERWRITE):
            raise SourceError(f"{path}, line {number}: {word!r} is there twice.")
        words[word] = size
        size += 1
    found = {symbol: index for index, symbol in enumerate(SPECIAL)}
    for word, index in words.items():
        token = word[:-2] if word.endswith("@@") else word + "</w>"
        if token in found:
            raise SourceError(f"{path}: {word!r} and another of its words become the token {token!r}.")
        found[token] = index
    return found, size


def merges(directory: Path) -> tuple[str, Path]:
    """The BPE codes as transformers' merges.txt has them: pairs in their order, without counts."""
    path = next((directory / name for name in CODES if (directory / name).is_file()), None)
    if path is None:
        raise SourceError(
            f"{directory} has no {CODES[0]}, and without BPE codes there is no tokenizer. "
            f"It holds: {listing(directory)}."
        )
    pairs = []
    for number, line in enumerate(_lines(path), 1):
        if number == 1 and line.startswith("#version"):  # subword-nmt's
            continue
        parts = line.rstrip("\n").split(" ")
        if len(parts) not in (2, 3) or not all(parts):
            raise SourceError(f"{path}, line {number}: {line[:60]!r} is no pair of pieces.")
        pairs.append(f"{parts[0]} {parts[1]}\n")
    return "".join(pairs), path


def _lines(path: Path) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:  # splits at newlines only: a token may be any other space
            return [line.rstrip("\n") for line in file if line.strip()]
    except FileNotFoundError:
        raise SourceError(f"{path.parent} has no {path.name}. It holds: {listing(path.parent)}.") from None
    except UnicodeDecodeError:
        raise SourceError(f"{path} is not text in UTF-8.") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.") from error
