# SPDX-License-Identifier: Apache-2.0
"""A translator of fairseq's, as wmt19's are, becomes a checkpoint of transformers' FSMT."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from paritas.apps.translate import fairseq_checkpoint as reading
from paritas.capture.source import quiet
from paritas.errors import InputError, SourceError

#: Settings of fairseq's that FSMT has no counterpart for.
_WITHOUT = (
    "encoder_normalize_before", "decoder_normalize_before", "encoder_learned_pos", "decoder_learned_pos",
    "no_token_positional_embeddings", "layernorm_embedding", "adaptive_input", "adaptive_softmax_cutoff",
    "no_cross_attention", "cross_self_attention",
)  # fmt: skip

#: What transformers calls fairseq's activations.
_ACTIVATIONS = {
    "relu": "relu", "gelu": "gelu", "gelu_fast": "gelu_new", "gelu_accurate": "gelu_new", "tanh": "tanh",
    "linear": "linear",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Search:
    """The beam search that the converted checkpoint does if nothing else is asked for."""

    num_beams: int = 5
    length_penalty: float = 1.0
    early_stopping: bool = False


@dataclasses.dataclass(frozen=True)
class Converted:
    """What became of a checkpoint. `tensors` are the weights that transformers loaded again, equal to the last bit."""

    directory: Path
    checkpoints: tuple[str, ...]
    languages: tuple[str, str]
    vocabularies: tuple[int, int]
    merged: bool
    parameters: int
    tensors: int
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        made = " and ".join(filter(None, (", ".join(self.checkpoints[:-1]), self.checkpoints[-1])))
        source, target = self.vocabularies
        words = f"{source} tokens, one vocabulary" if self.merged else f"{source} and {target} tokens"
        lines = [
            f"{self.directory}: {'-'.join(self.languages)}, {self.parameters:,} parameters, {words}",
            f"of {made}" + (f", averaged over {len(self.checkpoints)}" if len(self.checkpoints) > 1 else ""),
            f"left out: {', '.join(self.left_out) or 'nothing'}",
            *self.notes,
            f"transformers loads it: {self.tensors} tensors, none missing, none unexpected, all equal",
        ]
        return "\n".join(lines)


def convert(
    directory: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    checkpoints: Sequence[str] = (),
    average: bool = False,
    search: Search | None = None,
    told: Callable[[str], None] = lambda stage: None,
) -> Converted:
    """Write a directory that `FSMTForConditionalGeneration.from_pretrained` loads, and load it.

    directory: model*.pt or checkpoint*.pt, dict.<language>.txt twice, bpecodes. checkpoints: which files, where there
    are several; average: their mean, for checkpoints of one training. out: new or empty; it is there whole or not at
    all. Raises `SourceError` for what is wrong in `directory`, `InputError` for the rest.
    """
    source, target = Path(directory).expanduser(), Path(out).expanduser().resolve()
    check_target(target)
    paths = _chosen(source, checkpoints, average)
    told("read the checkpoint")
    states, configs, left_out = [], [], dict[str, None]()
    for path in paths:
        settings, weights, others = reading.read(path)
        state, ignored = reading.renamed(weights)
        states.append(state)
        configs.append(_config(settings, state, path))
        left_out |= dict.fromkeys([*others, *ignored])
    for config, path in zip(configs[1:], paths[1:], strict=True):
        if different := [name for name, value in config.items() if configs[0][name] != value]:
            raise SourceError(f"{path} cannot be averaged with {paths[0].name}: {different[0]} is another.")
    told("read the vocabularies")
    config = configs[0]
    vocabularies = [_vocabulary(source, config, side) for side in (0, 1)]
    merges, _ = reading.merges(source)
    notes = []
    if any(value.is_floating_point() and value.dtype != torch.float32 for value in states[0].values()):
        notes.append("its weights are of half precision, and float32 here, which changes none")
    state = reading.averaged(states, paths) if len(states) > 1 else {k: v.float() for k, v in states[0].items()}
    weights = _completed(state, config, paths[0])
    told("write and load it again")
    with _Staging(target) as staging:
        _write(staging, config, weights, vocabularies, merges, search or Search())
        equal, more = _check(staging, weights, paths[0])
    return Converted(
        target,
        tuple(path.name for path in paths),
        (config["langs"][0], config["langs"][1]),
        (config["src_vocab_size"], config["tgt_vocab_size"]),
        vocabularies[0] == vocabularies[1],
        sum(value.numel() for name, value in weights.items() if "embed_positions" not in name),
        equal,
        tuple(left_out),
        (*notes, *more),
    )


def _chosen(source: Path, names: Sequence[str], average: bool) -> list[Path]:
    if names:
        paths = [source / name for name in names]
        if absent := [path for path in paths if not path.is_file()]:
            raise SourceError(f"There is no file {absent[0]}.")
    else:
        paths = reading.checkpoints(source)
        if not average and source / "model.pt" in paths:
            return [source / "model.pt"]
        if average:  # checkpoint_best.pt and checkpoint_last.pt are copies of two of the others
            paths = [path for path in paths if any(map(str.isdigit, path.stem))] or paths
    if average and len(paths) < 2:
        raise InputError(f"There is one checkpoint, {paths[0]}: nothing to average.")
    if len(paths) > 1 and not average:
        raise InputError(
            f"{source} holds {len(paths)} checkpoints: {', '.join(path.name for path in paths)}. Choose one with "
            "--checkpoint; or --average them, if they are of one training: those of an ensemble are not."
        )
    return paths


# --- configuration -------------------------------------------------------------------------------------------


def _config(settings: Mapping[str, Any], weights: Mapping[str, torch.Tensor], path: Path) -> dict[str, Any]:
    """The fields of an `FSMTConfig`. Raises `SourceError` for a setting that is missing, or that FSMT cannot have."""

    def number(name: str, default: int | None = None) -> int:
        value = settings.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SourceError(f"{path}: the setting {name} is {value!r}; it has to be a number above 0.")
        return value

    def fraction(name: str, default: float) -> float:
        value = settings.get(name, default)
        return float(value) if isinstance(value, (int, float)) else default

    for name in _WITHOUT:
        if settings.get(name):
            raise SourceError(f"{path} was made with {name}={settings[name]!r}, which FSMT cannot do.")
    for name, known in (("bpe", ("fastbpe", "subword_nmt")), ("tokenizer", ("moses",))):
        if settings.get(name) not in (None, *known):
            raise SourceError(f"{path} needs {name}={settings[name]!r}; FSMT's tokenizer is {' or '.join(known)}.")
    activation = settings.get("activation_fn") or "relu"
    if activation not in _ACTIVATIONS:
        raise SourceError(f"{path} was made with activation_fn={activation!r}, which FSMT cannot do.")
    languages = [settings.get(name) for name in ("source_lang", "target_lang")]
    if not all(isinstance(language, str) and language for language in languages):
        raise SourceError(f"{path} does not say its languages: source_lang and target_lang are {languages}.")
    width = number("encoder_embed_dim", settings.get("decoder_embed_dim"))
    if number("decoder_embed_dim", width) != width or settings.get("decoder_output_dim", width) != width:
        raise SourceError(f"{path}: encoder and decoder are not of the same width, as FSMT's are.")
    encoder = weights.get("model.encoder.embed_tokens.weight")
    decoder = weights.get("model.decoder.embed_tokens.weight")
    if encoder is None or decoder is None or encoder.dim() != 2 or decoder.dim() != 2:
        raise SourceError(f"{path} has no embed_tokens.weight of encoder and decoder.")
    return {
        "langs": languages,
        "src_vocab_size": len(encoder),
        "tgt_vocab_size": len(decoder),
        "d_model": width,
        "activation_function": _ACTIVATIONS[activation],
        "activation_dropout": fraction("activation_dropout", fraction("relu_dropout", 0.0)),
        "attention_dropout": fraction("attention_dropout", 0.0),
        "dropout": fraction("dropout", 0.1),
        "max_position_embeddings": max(number("max_source_positions", 1024), number("max_target_positions", 1024)),
        "encoder_attention_heads": number("encoder_attention_heads"),
        "encoder_ffn_dim": number("encoder_ffn_embed_dim"),
        "encoder_layerdrop": fraction("encoder_layerdrop", 0.0),
        "encoder_layers": number("encoder_layers"),
        "decoder_attention_heads": number("decoder_attention_heads"),
        "decoder_ffn_dim": number("decoder_ffn_embed_dim"),
        "decoder_layerdrop": fraction("decoder_layerdrop", 0.0),
        "decoder_layers": number("decoder_layers"),
        "scale_embedding": not settings.get("no_scale_embedding", False),
        "tie_word_embeddings": bool(settings.get("share_all_embeddings", False)),
        "share_output": bool(settings.get("share_decoder_input_output_embed", False)),
    }


def _fsmt_config(config: Mapping[str, Any], search: Search) -> Any:
    import transformers

    fields = {name: value for name, value in config.items() if name != "share_output"}
    return transformers.FSMTConfig(
        architectures=["FSMTForConditionalGeneration"],
        max_length=min(200, config["max_position_embeddings"]),  # 200 is fairseq's
        **fields,
        **dataclasses.asdict(search),
    )


def _vocabulary(source: Path, config: Mapping[str, Any], side: int) -> dict[str, int]:
    path = source / f"dict.{config['langs'][side]}.txt"
    found, size = reading.vocabulary(path)
    rows = config["tgt_vocab_size" if side else "src_vocab_size"]
    if size != rows:
        raise SourceError(
            f"{path} has {size} entries, the four special symbols included, and the checkpoint's "
            f"{'decoder' if side else 'encoder'} embeds {rows}. Is it the dictionary of another model?"
        )
    return found


# --- weights -------------------------------------------------------------------------------------------------


def _completed(state: dict[str, torch.Tensor], config: Mapping[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """Every weight that transformers' FSMT has, once: with positions, without those that are tied."""
    import transformers
    from transformers.models.fsmt.modeling_fsmt import SinusoidalPositionalEmbedding

    encoder, decoder, output = (
        f"model.{name}.weight" for name in ("encoder.embed_tokens", "decoder.embed_tokens", "decoder.output_projection")
    )
    found = dict(state)
    if config["tie_word_embeddings"]:
        for name in (encoder, output):
            if name in found and not torch.equal(found[name], found[decoder]):
                raise SourceError(
                    f"{path} says share_all_embeddings, but {name.removeprefix('model.')} is not the decoder's."
                )
            found.pop(name, None)
    elif output not in found and config["share_output"]:
        found[output] = found[decoder].clone()
    wanted = _fsmt_config(config, Search())
    for side in ("encoder", "decoder"):
        # Computed, and not in the file: transformers would call them missing.
        rows = config["max_position_embeddings"] + wanted.pad_token_id + 1
        found[f"model.{side}.embed_positions.weight"] = SinusoidalPositionalEmbedding.get_embedding(
            rows, config["d_model"], wanted.pad_token_id
        )
    try:
        with torch.device("meta"):
            shapes = {
                name: tuple(value.shape)
                for name, value in transformers.FSMTForConditionalGeneration(wanted).state_dict().items()
            }
    except AssertionError as error:  # heads that do not divide the width
        raise SourceError(f"{path}: FSMT cannot have its sizes: {error}") from error
    if config["tie_word_embeddings"]:
        shapes = {name: shape for name, shape in shapes.items() if name not in (encoder, output)}
    wrong = [f"{name} is missing" for name in shapes if name not in found]
    wrong += [f"{name} is unknown to FSMT" for name in found if name not in shapes]
    wrong += [
        f"{name} is of shape {list(value.shape)}, not {list(shapes[name])}"
        for name, value in found.items()
        if name in shapes and tuple(value.shape) != shapes[name]
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise SourceError(f"{path} is no transformer as FSMT is one: {'; '.join(wrong[:3])}{more}.")
    return {name: found[name].contiguous() for name in sorted(found)}


# --- the directory -------------------------------------------------------------------------------------------


def check_target(target: Path) -> None:
    """Refuse what exists. Raises `InputError`."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists and is not an empty directory. Give a new one.")


def _write(
    directory: Path,
    config: Mapping[str, Any],
    weights: dict[str, torch.Tensor],
    vocabularies: Sequence[dict[str, int]],
    merges: str,
    search: Search,
) -> None:
    import transformers
    from safetensors.torch import save_file

    made = _fsmt_config(config, search)
    made.dtype = torch.float32
    made.save_pretrained(directory)
    transformers.GenerationConfig(
        max_length=made.max_length,
        bos_token_id=made.bos_token_id,
        pad_token_id=made.pad_token_id,
        eos_token_id=made.eos_token_id,
        decoder_start_token_id=made.decoder_start_token_id,
        forced_eos_token_id=made.forced_eos_token_id,
        **dataclasses.asdict(search),
    ).save_pretrained(directory)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    # safetensors 0.8 lets nobody else read it, whatever the umask says.
    shutil.copymode(directory / "config.json", directory / "model.safetensors")
    for name, vocabulary in zip(("vocab-src.json", "vocab-tgt.json"), vocabularies, strict=True):
        _write_json(directory / name, vocabulary)
    (directory / "merges.txt").write_text(merges, encoding="utf-8", newline="\n")
    tokenizer = {
        "tokenizer_class": "FSMTTokenizer",
        "langs": config["langs"],
        "model_max_length": config["max_position_embeddings"],
        # Without a capital in its vocabulary, a model was trained on text without.
        "do_lower_case": not any(letter.isupper() for token in vocabularies[0] for letter in token),
    }
    _write_json(directory / "tokenizer_config.json", tokenizer)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8", newline="\n")


def _check(directory: Path, weights: Mapping[str, torch.Tensor], path: Path) -> tuple[int, list[str]]:
    """Load what was written, and compare: how many tensors are equal, and what could not be checked."""
    import transformers

    with quiet():
        loading: Any = transformers.FSMTForConditionalGeneration
        model, info = loading.from_pretrained(directory, output_loading_info=True, local_files_only=True)
    loaded = model.state_dict()
    wrong = [f"{kind}: {', '.join(sorted(map(str, names)))}" for kind, names in info.items() if names]
    wrong += [f"not equal: {name}" for name, value in weights.items() if not torch.equal(loaded[name], value)]
    if wrong:
        raise SourceError(f"{path} was converted, but transformers loads it otherwise: {'; '.join(wrong[:3])}.")
    if importlib.util.find_spec("sacremoses") is None:
        return len(weights), [
            "its tokenizer was not tried: sacremoses is not installed (pip install 'paritas[translate]')"
        ]
    with quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
    if not isinstance(tokenizer, transformers.FSMTTokenizer):
        raise SourceError(f"{path}: its tokenizer loads as a {type(tokenizer).__name__}.")
    return len(weights), []


class _Staging:
    """A directory beside `target` that takes its place when all went well, and is gone if not."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target.with_name(f".{target.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")

    def __enter__(self) -> Path:
        try:
            self._path.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"{self._target} cannot be written: {error.strerror}: {error.filename}.") from error
        return self._path

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                for path in self._path.iterdir():
                    with open(path, "rb") as file:
                        os.fsync(file.fileno())
                os.replace(self._path, self._target)  # an empty directory is replaced, any other refused
        finally:
            shutil.rmtree(self._path, ignore_errors=True)
