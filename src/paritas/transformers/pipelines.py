# SPDX-License-Identifier: Apache-2.0
"""`pipeline(task, model=..., engine=...)`: the original's pipeline with its networks on an engine."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoFeatureExtractor
from transformers.pipelines import PIPELINE_REGISTRY

from paritas.errors import InputError
from paritas.transformers.directory import open_model, port_in
from paritas.transformers.models import Ported, attach, split
from paritas.transformers.opened import Opened


def pipeline(task: str | None = None, model: Any = None, *args: Any, **kwargs: Any) -> transformers.Pipeline:
    """As `transformers.pipeline`, and with `engine=`, `mode=`, `target=`, `engine_device=`.

    model: also the directory of a port, which is opened as it is; its task then follows from its class.
    Raises what the original raises, `UnknownEngine` or `EngineMissing`, and what the port is not.
    """
    ours, theirs = split(kwargs)
    build: Any = transformers.pipeline
    if (place := port_in(model, {})) is not None:
        reading: dict[str, Any] = {name: theirs.pop(name) for name in ("dtype", "device_map") if name in theirs}
        model = open_model(place, None, {**reading, **(theirs.pop("model_kwargs", None) or {})}, ours)
        if task in _REMOVED or (task or "").startswith("translation_") or (task is None and _answers_texts(model)):
            what = task or "for what translates or summarises"
            raise InputError(
                f"transformers {transformers.__version__} has no pipeline {what}. "
                f"A {type(model).__name__} answers texts so:   paritas.load({str(place)!r}).generate([TEXT, ...])"
            )
        task, ours = task or _task_of(model), {}
        # What it reads its inputs with lies beside it, where the original would find it by the model's name.
        for name in _readers(task, place):
            theirs.setdefault(name, str(place))
        if theirs.get("feature_extractor") == str(place):  # of a name, pipelines ask for the model's name as well
            theirs["feature_extractor"] = AutoFeatureExtractor.from_pretrained(place)
    with _of_its_own_class(model):
        made = build(task, model, *args, **theirs)
    for name in ("model", "assistant_model", "vocoder"):
        part = getattr(made, name, None)
        if isinstance(part, Ported) and part.engine and not ours:
            continue  # it has an engine already, and its ports
        if isinstance(part, transformers.PreTrainedModel):
            setattr(made, name, attach(part, **ours))
    return made


#: Tasks of pipelines that transformers 5 has no more, of models that are an encoder and a decoder.
_REMOVED = ("text2text-generation", "summarization", "translation")


def _answers_texts(model: Any) -> bool:
    return bool(model.config.is_encoder_decoder and model.can_generate() and model.main_input_name == "input_ids")


#: What reads the inputs of a pipeline -> the files of which one has to be there.
_READERS = {
    "tokenizer": ("tokenizer_config.json", "tokenizer.json"),
    "image_processor": ("preprocessor_config.json",),
    "feature_extractor": ("preprocessor_config.json", "processor_config.json"),
    "processor": ("processor_config.json",),
}

#: Tasks for models of many classes: what a class has beside them is what it was made for.
_GENERAL = frozenset({
    "feature-extraction", "image-feature-extraction", "zero-shot-audio-classification", "zero-shot-classification",
    "decision", "any-to-any",
})  # fmt: skip


def _task_of(model: Any) -> str:
    """The task of the pipelines for models of that class. Raises `InputError` for a class without one."""
    original = model._paritas_original
    found = []
    for task, about in PIPELINE_REGISTRY.supported_tasks.items():
        for auto in about["pt"]:
            try:
                named = auto._model_mapping[type(model.config)]
            except (AttributeError, KeyError):
                continue
            if original in (named if isinstance(named, tuple | list) else (named,)):
                found.append(task)
    if not found:
        raise InputError(f"No task of pipelines is known of {original.__name__}: pipeline(TASK, model=...).")
    own = [task for task in found if task not in _GENERAL]
    sees = getattr(model, "main_input_name", "") == "pixel_values"
    features = "image-feature-extraction" if sees else "feature-extraction"
    return next(iter(own), features if features in found else found[0])


def _readers(task: str, place: Path) -> list[str]:
    """The readers of inputs that the pipeline of a task loads, and that lie in a directory."""
    _, about, _ = transformers.pipelines.check_task(task)
    impl: Any = about["impl"]
    if isinstance(impl, str):
        module, _, name = impl.rpartition(".")
        impl = getattr(importlib.import_module(module), name)
    return [
        name
        for name, files in _READERS.items()
        if getattr(impl, f"_load_{name}", False) is not False and any((place / file).is_file() for file in files)
    ]


@contextlib.contextmanager
def _of_its_own_class(model: Any) -> Iterator[None]:
    """While a pipeline is built: some look for the model's class in a table, whether a vocoder is needed."""
    ported: Any = type(model)
    if not isinstance(model, Ported):
        yield
        return
    model.__class__ = ported._paritas_original
    if isinstance(ported, type) and issubclass(ported, Opened):
        vars(model)["to"] = lambda *args, **kwargs: model  # it has no weights to be moved
    try:
        yield
    finally:
        model.__class__ = ported
        vars(model).pop("to", None)
