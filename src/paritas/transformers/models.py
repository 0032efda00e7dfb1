# SPDX-License-Identifier: Apache-2.0
"""Classes of transformers whose networks run on an engine: what they have beside those of other libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from transformers.cache_utils import Cache, StaticCache

from paritas.dropin import classes, frameworks
from paritas.dtypes import SHORT
from paritas.errors import InputError
from paritas.transformers.cache import Held, arrays_of, dtype_of, freeze, is_kept
from paritas.transformers.generation import Generation
from paritas.transformers.optimum import understood

frameworks.keep(Cache)


class Ported(classes.Ported):
    """Mixed into a class of transformers: loading, and caches of generation."""

    _paritas_network = Generation
    _paritas_methods = ("generate",)

    #: The model of a port, where arguments of `from_pretrained` name one: set by `paritas.transformers.directory`.
    _paritas_open: ClassVar[Callable[..., Any]] = staticmethod(lambda *arguments: None)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As the original's; and `engine=`, one of `paritas.engines()`, by default the best that is installed,
        `mode=` "graph" or "pynative" and `target=` "cpu" or "ascend" for MindSpore, `engine_device=` and `weights=`
        "int8" or "int4" for OpenVINO.

        A directory that holds a port is opened as it is: nothing is traced, and no weight is read into PyTorch.
        Keywords of mindone's are understood: `mindspore_dtype=` is `dtype=`. Raises what the original raises.
        """
        ours, theirs = split(kwargs)
        if (opened := cls._paritas_open(cls, args, theirs, ours)) is not None:
            return opened
        with torch.inference_mode(False):  # whose tensors would tell nobody that they were changed
            loaded = super().from_pretrained(*args, **theirs)  # type: ignore[misc]
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        classes.connect(model, **ours)
        return loaded

    def _prepare_cache_for_generation(self, *args: Any, **kwargs: Any) -> Any:
        found = super()._prepare_cache_for_generation(*args, **kwargs)  # type: ignore[misc]
        model_kwargs = kwargs.get("model_kwargs", args[1] if len(args) > 1 else {})
        cache = model_kwargs.get("past_key_values")
        own = getattr(cache, "self_attention_cache", cache)
        if isinstance(own, StaticCache) and is_kept(own):
            # Its layers are filled when somebody looks at them: until then generation would prepare masks for them.
            freeze(own, Held(arrays_of(own)), None, dtype_of(own, self.dtype))  # type: ignore[attr-defined]
        return found


def ported_class(original: Any) -> Any:
    """The class of transformers with its networks on an engine. It is a subclass, of the same name."""
    return classes.ported_class(original, Ported)


def attach(model: torch.nn.Module, **ours: Any) -> Any:
    """An original in memory, from now on on the engine: the same object, of the ported class."""
    return classes.attach(model, Ported, **ours)


def split(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our keywords, and the original's, with a dtype as torch has it.

    Raises `UnknownEngine` or `EngineMissing`: before any weight is read.
    """
    ours, theirs = classes.split(understood(kwargs))
    for alias in ("mindspore_dtype", "torch_dtype"):
        if alias in theirs:
            theirs["dtype"] = theirs.pop(alias)
    if "dtype" in theirs:
        theirs["dtype"] = _torch_dtype(theirs["dtype"])
    return ours, theirs


def _torch_dtype(dtype: Any) -> Any:
    if dtype is None or isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    name = str(dtype).rpartition(".")[2].lower()  # "Float16", as MindSpore prints it, or "mindspore.float16"
    found = getattr(torch, SHORT.get(name, name), None)
    if not isinstance(found, torch.dtype):
        raise InputError(f"{dtype!r} is no dtype; pass float32, float16 or bfloat16.")
    return found
