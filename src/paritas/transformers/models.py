# SPDX-License-Identifier: Apache-2.0
"""Classes of transformers whose networks run on an engine: the original's own class with another forward."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers.cache_utils import StaticCache

from paritas.dropin.frameworks import back, to_torch
from paritas.dtypes import SHORT
from paritas.errors import InputError
from paritas.making import check_weights
from paritas.run.engine import default_engine
from paritas.run.engine import engine as find_engine
from paritas.transformers.cache import Held, arrays_of, dtype_of, freeze, is_kept
from paritas.transformers.dispatch import computes_original, in_pytorch, install
from paritas.transformers.network import Network

#: Keywords of ours in `from_pretrained` and `from_config`; all others are the original's.
OURS = ("engine", "mode", "target", "weights", "engine_device")


class Ported:
    """Mixed into a class of transformers: what is called from outside runs on the engine.

    Everything else is inherited: configuration, weights, saving, generation loops. `model.ports` are the ports that
    were made so far; each can `verify` itself.
    """

    _paritas_original: type
    _paritas: Network | None = None

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As the original's; and `engine=` "openvino", "mindspore" or "torch", by default the best that is installed,
        `mode=` "graph" or "pynative" and `target=` "cpu" or "ascend" for MindSpore, `engine_device=` and `weights=`
        "int8" or "int4" for OpenVINO.

        Keywords of mindone's are understood: `mindspore_dtype=` is `dtype=`. Raises what the original raises.
        """
        ours, theirs = split(kwargs)
        with torch.inference_mode(False):  # whose tensors would tell nobody that they were changed
            loaded = super().from_pretrained(*args, **theirs)  # type: ignore[misc]
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        _connect(model, **ours)
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

    def in_pytorch(self) -> Any:
        """The same model of transformers' own class, in evaluation mode: its weights are this one's."""
        return in_pytorch(self)  # type: ignore[arg-type]

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        network: Network | None = state.pop("_paritas", None)
        state["_paritas_options"] = network.options if network is not None else None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        options = state.pop("_paritas_options", None)
        super().__setstate__(state)  # type: ignore[misc]
        if options is not None:
            _connect(self, **options)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # A class that was made here is not found under its name, which is the original's.
        return _blank, (self._paritas_original,), self.__getstate__()

    @property
    def ports(self) -> list[Any]:
        """The ports that were made so far: one for each way in which the model was called."""
        return self._paritas.ports() if self._paritas is not None else []

    @property
    def engine(self) -> str:
        return self._paritas.engine if self._paritas is not None else ""


def _blank(original: Any) -> Any:
    """A model of the ported class without anything in it, as pickle fills it."""
    cls = ported_class(original)
    return cls.__new__(cls)


def ported_class(original: Any) -> Any:
    """The class of transformers with its networks on an engine. It is a subclass, of the same name."""
    return original if issubclass(original, Ported) else _ported_class(original)


@functools.cache
def _ported_class(original: Any) -> Any:
    space: dict[str, Any] = {
        # transformers reads from it which attention a class may use, what it records, and whether its code is foreign.
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "_paritas_original": original,
    }
    # Its bases are the original's too: who looks for `GenerationMixin` among them finds it.
    made = type(original.__name__, (Ported, original, *original.__bases__), space)
    made.__init__ = _init_like(original.__init__)  # type: ignore[misc]
    made.forward = _forward_like(original.forward)  # type: ignore[attr-defined]
    for name in _methods(original):
        setattr(made, name, _for_any_framework(getattr(made, name)))
    return made


def _init_like(original: Callable[..., Any]) -> Callable[..., None]:
    """Its signature is the original's."""

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        ours = {name: kwargs.pop(name) for name in OURS if name in kwargs}
        with torch.inference_mode(False):
            original(self, *args, **kwargs)
        _connect(self, **ours)
        self.eval()

    return __init__


def _forward_like(original: Callable[..., Any]) -> Callable[..., Any]:
    """Its signature is the original's: generation loops read from it what the model takes."""

    @functools.wraps(original)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._paritas is None or computes_original():
            return original(self, *args, **kwargs)
        args, kwargs, framework = to_torch(args, kwargs)
        own = functools.partial(original, self)
        return back(self._paritas("", self, own, args, kwargs), framework)

    return forward


def attach(model: torch.nn.Module, **ours: Any) -> Any:
    """An original in memory, from now on on the engine: the same object, of the ported class."""
    if not isinstance(model, Ported):
        model.__class__ = ported_class(type(model))
    _connect(model, **ours)
    return model.eval()


def split(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our keywords, and the original's, with a dtype as torch has it.

    Raises `UnknownEngine` or `EngineMissing`: before any weight is read.
    """
    ours = {name: value for name, value in kwargs.items() if name in OURS and value is not None}
    theirs = {name: value for name, value in kwargs.items() if name not in OURS}
    find_engine(ours.get("engine") or default_engine())
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


def _connect(
    model: Any,
    *,
    engine: str | None = None,
    mode: str = "graph",
    target: str = "cpu",
    weights: str = "",
    engine_device: str = "",
) -> None:
    name = engine or default_engine()
    runtime = find_engine(name)
    check_weights(weights, name)
    install(
        model,
        Network(
            model,
            name,
            mode=(mode or "graph") if len(runtime.modes) > 1 else "",
            target=target,
            weights=weights,
            device=engine_device,
        ),
    )


# --- tensors of the caller's framework -----------------------------------------------------------------------


def _methods(original: type) -> list[str]:
    """The methods of the model's own classes, and those that generate: what users call with tensors."""
    names: dict[str, None] = {"generate": None}
    for cls in original.__mro__:
        if not cls.__module__.startswith("transformers.models."):
            continue
        names |= {
            name: None
            for name, value in vars(cls).items()
            if inspect.isfunction(value) and not name.startswith("__") and name != "forward"
        }
    return [name for name in names if inspect.isfunction(getattr(original, name, None))]


def _for_any_framework(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        args, kwargs, framework = to_torch(args, kwargs)
        return back(method(self, *args, **kwargs), framework)

    return called
