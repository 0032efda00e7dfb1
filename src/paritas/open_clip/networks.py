# SPDX-License-Identifier: Apache-2.0
"""Models of two towers, each tower a port: what of a call is a graph, and what the model's own code does around it."""

from __future__ import annotations

import inspect
import logging
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from paritas.dropin import classes, network
from paritas.dropin.calls import original_class
from paritas.dropin.dispatch import computes_original
from paritas.errors import (
    CaptureError,
    EngineError,
    InputError,
    LoweringError,
    ParitasError,
    UnsupportedOps,
    reason_of,
)
from paritas.options import BuildOptions

#: Where the towers are, by what they look at.
_TOWERS = {"visual": "picture", "text": "text", "encode_text()": "text"}


class Answers(network.Network):
    """The calls of a model of open_clip: each tower is a port, whichever way it is called.

    The model's forward, `encode_image` and `generate` are its own code, which calls its towers; the text tower of a
    class that has it in pieces is a port of `encode_text`. What cannot be one port is computed module by module.
    """

    logger: ClassVar[logging.Logger] = logging.getLogger("paritas.open_clip")
    refusals: ClassVar[tuple[type[Exception], ...]] = (CaptureError, LoweringError, UnsupportedOps, EngineError)
    by_modules: ClassVar[bool] = True

    def __init__(self, model: torch.nn.Module, build: BuildOptions) -> None:
        super().__init__(model, build)
        self._widths: dict[str, int] = {}

    def __call__(self, path: str, module: torch.nn.Module, own: Any, args: Any, kwargs: Any) -> Any:
        if path:
            return self._told(path, module, own, args, kwargs)
        with self._lock:
            self._notice()
            why = self._only_original(module)
            if why:
                return self._original(module, why, own, args, kwargs)
        return own(*args, **kwargs)

    def method(self, name: str, own: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name != "encode_text":
            return super().method(name, own, args, kwargs)
        if isinstance(getattr(self.model, "text", None), torch.nn.Module):
            return own(*args, **kwargs)  # the tower is a module, and a port
        original = getattr(original_class(type(self.model)), name)
        try:
            given = inspect.signature(original).bind(self.model, *args, **kwargs)
        except TypeError as error:
            raise InputError(f"{type(self.model).__name__}.{name}: {error}") from None
        # Features are divided by their length around the port, which has its weights once then.
        normalize = given.arguments.pop("normalize", False)
        features = super().method(name, own, given.args[1:], given.kwargs)
        return F.normalize(features, dim=-1) if normalize else features

    def _told(self, path: str, module: torch.nn.Module, own: Any, args: Any, kwargs: Any) -> Any:
        """What a tower answers; what the original refuses is an `InputError` that says what the tower takes."""
        try:
            found = super().__call__(path, module, own, args, kwargs)
            if path in _TOWERS:
                self._check_width(_TOWERS[path], found)
            return found
        except ParitasError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if computes_original() or path not in _TOWERS:
                raise
            raise InputError(
                f"{type(self.model).__name__} cannot compute {self._given(args, kwargs)}: {reason_of(error)}. "
                f"It takes {self.takes(path)}."
            ) from error

    def _check_width(self, tower: str, found: Any) -> None:
        """Raise `InputError` where the features of pictures and of texts have not the same width."""
        features = found[0] if isinstance(found, tuple) and found else found
        if isinstance(features, torch.Tensor) and features.dim() == 2:
            self._widths[tower] = features.shape[1]
        if len({*self._widths.values()}) > 1:
            raise InputError(
                f"{type(self.model).__name__} has towers that do not fit: its features of a picture are "
                f"{self._widths['picture']} wide, and those of a text {self._widths['text']}. In its configuration "
                "vision_cfg and text_cfg have to end in embed_dim; a tower of timm does with timm_proj linear or mlp."
            )

    def _given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        found = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        return " and ".join(f"a tensor of {list(one.shape)}, {str(one.dtype).removeprefix('torch.')}" for one in found)

    def takes(self, path: str) -> str:
        """What a tower takes, in words."""
        if path == "visual":
            size = getattr(self.model.visual, "image_size", "height")
            height, width = size if isinstance(size, (tuple, list)) else (size, size)
            tower: Any = self.model.visual
            dtypes = [p.dtype for p in tower.parameters() if p.dim() == 4]  # of what looks at pixels
            low = [str(dtype) for dtype in dtypes[:1] if dtype in (torch.float16, torch.bfloat16)]
            kind, cast = (low[0].removeprefix("torch."), f".to({low[0]})") if low else ("floats", "")
            return f"images [batch, 3, {height}, {width}] of {kind}: preprocess(image).unsqueeze(0){cast} is one"
        length = getattr(self.model, "context_length", "length")
        words = getattr(self.model, "vocab_size", 0)
        return f"tokens [batch, {length}] of whole numbers{f' below {words}' if words else ''}: the tokenizer's"


class Ported(classes.Ported):
    """Mixed into a class of two towers."""

    _paritas_network = Answers
    _paritas_computed = ("encode_text", "forward_intermediates")


def is_two_towers(cls: Any) -> bool:
    """Whether models of that class encode images and texts."""
    return issubclass(cls, torch.nn.Module) and hasattr(cls, "encode_image") and hasattr(cls, "encode_text")


def attach(model: Any, **ours: Any) -> Any:
    """A model in memory, from now on on the engine: the same object. Raises `InputError` for one of other kinds."""
    if not is_two_towers(type(model)):
        raise InputError(f"{type(model).__name__} is no model of two towers: it has no encode_image and encode_text.")
    return classes.attach(model, Ported, **ours)
