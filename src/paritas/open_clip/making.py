# SPDX-License-Identifier: Apache-2.0
"""The functions of open_clip that make models: the originals, with their input checked and an engine behind what
they made."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch

from paritas.dropin.classes import OURS, split
from paritas.errors import InputError, ParitasError, SourceError, did_you_mean, first_line, reason_of
from paritas.open_clip import checkpoints
from paritas.open_clip.networks import attach, is_two_towers

_logger = logging.getLogger("paritas.open_clip")

#: What a name begins with that is no architecture's: where configuration and weights are.
_ELSEWHERE = ("hf-hub:", "local-dir:")

#: What `precision=` may be; open_clip's own takes any other word for "fp32". What amp casts, it casts in training.
PRECISIONS = ("fp32", "fp16", "bf16", "pure_fp16", "pure_bf16", "amp", "amp_bf16", "amp_bfloat16")


def with_engine(original: Callable[..., Any]) -> Callable[..., Any]:
    """That function, which takes our keywords too and whose model is on the engine."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def made(*args: Any, **kwargs: Any) -> Any:
        ours, theirs = split(kwargs)
        try:
            given = signature.bind(*args, **theirs)
        except TypeError as error:
            raise InputError(f"{original.__name__}: {error}") from None
        with torch.inference_mode(False), _prepared(given):  # whose tensors would tell nobody that they were changed
            try:
                found = original(*given.args, **given.kwargs)
            except TypeError as error:  # what it does not know it hands to the class of the model
                if unknown := re.search(r"unexpected keyword argument '(\w+)'", str(error)):
                    close = difflib.get_close_matches(unknown[1], [*signature.parameters, *OURS], 1)
                    meant = did_you_mean(map(repr, close))
                    raise InputError(f"{original.__name__} has no argument {unknown[1]!r}.{meant}") from error
                raise
        for one in found if isinstance(found, tuple) else (found,):
            if is_two_towers(type(one)):
                attach(one, **ours)
        return found

    made.__signature__ = _with_ours(signature)  # type: ignore[attr-defined]
    return made


def _with_ours(signature: inspect.Signature) -> inspect.Signature:
    keywords = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None) for n in OURS]
    parameters = list(signature.parameters.values())
    last = [parameters.pop()] if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD else []
    return signature.replace(parameters=[*parameters, *keywords, *last])


@contextlib.contextmanager
def _prepared(given: inspect.BoundArguments) -> Iterator[None]:
    """Check the arguments before any work, and let the original read files that it does not know or would execute."""
    asked = given.arguments
    _refuse_code(asked)
    _check_precision(asked.get("precision"))
    if asked.pop("jit", False):
        _logger.info("jit=True: the engine computes a compiled graph anyway, and no TorchScript is made")
    name, pretrained = str(asked["model_name"]), str(asked.get("pretrained") or "")
    with contextlib.ExitStack() as stack:
        if not name.startswith(_ELSEWHERE):
            check_name(name)
            if pretrained and not open_clip.is_pretrained_cfg(name.replace("/", "-"), pretrained):
                path = _weights(name, pretrained)
                asked["pretrained"] = stack.enter_context(checkpoints.for_torch(path))
        for tower in ("pretrained_image_path", "pretrained_text_path"):
            if asked.get(tower):
                asked[tower] = stack.enter_context(checkpoints.for_torch(Path(asked[tower]).expanduser()))
        try:
            yield
        except ParitasError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:
            if "loading state_dict" in str(error) or (pretrained and isinstance(error, AssertionError)):
                raise SourceError(_misfit(name, pretrained, str(error))) from error
            if isinstance(error, RuntimeError):
                raise
            raise InputError(f"{name} cannot be made: {reason_of(error)}") from error


def _refuse_code(asked: dict[str, Any]) -> None:
    more = asked.get("model_kwargs", {})
    if asked.get("weights_only", True) is False or more.get("weights_only", True) is False:
        raise InputError(
            "weights_only=False would unpickle a file, which can run any code. Leave it out: only tensors are read."
        )


def _check_precision(precision: Any) -> None:
    if precision is None or precision in PRECISIONS:
        return
    meant = did_you_mean(map(repr, difflib.get_close_matches(str(precision), PRECISIONS, 2, 0.5)))
    raise InputError(f"precision={precision!r} is none of {', '.join(PRECISIONS)}.{meant}")


def architecture_of(name: str) -> str:
    """As open_clip calls it: OpenAI's names are told otherwise, "ViT-L/14@336px"."""
    return name.replace("/", "-").replace("@336px", "-336")


def check_name(name: str) -> None:
    """Raise `InputError` for what is no architecture of open_clip's."""
    known = open_clip.list_models()
    cleaned = name.replace("/", "-")
    if cleaned not in known:
        lower = {one.lower(): one for one in known}
        close = [lower[one] for one in difflib.get_close_matches(cleaned.lower(), lower, 3, 0.6)]
        raise InputError(
            f"open_clip has no model {name!r}.{did_you_mean(close)} It has {len(known)}: "
            "paritas.open_clip.list_models(); others are added by add_model_config(FILE), or named 'hf-hub:OWNER/NAME' "
            "or 'local-dir:FOLDER'."
        )


def _weights(name: str, pretrained: str) -> Path:
    """The file of weights that is meant. Raises `InputError` for what is neither a file nor a tag of that model."""
    path = Path(pretrained).expanduser()
    if path.is_file():
        return path
    own = open_clip.list_pretrained_tags_by_model(name.replace("/", "-"))
    others = open_clip.list_pretrained_models_by_tag(pretrained)
    tags = f"{name} has {', '.join(own)}" if own else f"{name} has no pretrained weights"
    told = f"; it is one of {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}" if others else ""
    close = difflib.get_close_matches(pretrained, own, 1)
    meant = "" if others else did_you_mean(map(repr, close))
    raise InputError(f"{pretrained!r} is neither a file nor weights of {name}{told}.{meant} {tags}.")


def _misfit(name: str, pretrained: str, text: str) -> str:
    """What the weights have otherwise than the model, in a line: names, and the first tensor of another shape."""
    shapes = re.findall(
        r"size mismatch for (\S+): copying a param with shape torch.Size\((.*?)\) from checkpoint, "
        r"the shape in current model is torch.Size\((.*?)\)",
        text,
    )
    told = []
    if shapes:
        first, has, wants = shapes[0]
        told.append(
            f"{len(shapes)} tensors are of another shape, first {first}: {has} in the file, {wants} in the model"
        )
    for kind, words in (("Missing", "are missing in the file"), ("Unexpected", "are in the file alone")):
        if found := re.search(rf"{kind} key\(s\) in state_dict: (.*?)\. *$", text, re.M):
            names = re.findall(r'"([^"]+)"', found[1])
            told.append(f"{len(names)} {words}, first {names[0]}")
    source = pretrained or "What is there"
    return f"{source} does not fit {name}: {'; '.join(told) or first_line(RuntimeError(text))}."


def load_openai_model(*args: Any, **kwargs: Any) -> Any:
    """open_clip's, of whose TorchScript archives only the tensors are read; with our keywords."""
    ours, theirs = split(kwargs)
    given = inspect.signature(open_clip.load_openai_model).bind(*args, **theirs)
    _check_precision(given.arguments.get("precision"))
    name = str(given.arguments["name"])
    if url := open_clip.get_pretrained_url(name, "openai"):
        path = open_clip.download_pretrained_from_url(url, cache_dir=given.arguments.get("cache_dir"))
    elif Path(name).expanduser().is_file():
        path = str(Path(name).expanduser())
    else:
        models = open_clip.list_openai_models()
        close = difflib.get_close_matches(name, models, 2)
        meant = did_you_mean(close)
        raise InputError(f"{name!r} is neither a file nor one of OpenAI's models.{meant} They are {', '.join(models)}.")
    with torch.inference_mode(False), checkpoints.for_torch(path, (".pt", ".pth")) as file:
        given.arguments["name"] = file
        return attach(open_clip.load_openai_model(*given.args, **given.kwargs), **ours)


MAKERS: dict[str, Callable[..., Any]] = {
    name: with_engine(getattr(open_clip, name))
    for name in ("create_model", "create_model_and_transforms", "create_model_from_pretrained")
}
MAKERS["load_openai_model"] = load_openai_model
