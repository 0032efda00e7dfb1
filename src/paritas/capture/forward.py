# SPDX-License-Identifier: Apache-2.0
"""A model's forward as torch.export takes it best: one parameter per tensor, and a flat tuple of tensors returned.

`dynamic_shapes` has to match the parameters one by one, which `**kwargs`, `*args` and nested arguments prevent; and
torch knows only some of the classes that a model may return.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from paritas.arguments import Nesting, by_position, invoke, nest
from paritas.errors import CaptureError
from paritas.program import EACH
from paritas.pytree import Structure, describe_output, with_symbols

#: Names by which transformers' exporter takes a tensor for a label, and refuses it.
_RESERVED = {"labels", "future_values", "return_loss"}

_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


@dataclasses.dataclass(frozen=True)
class Call:
    """What a model is captured with: tensors by name, the arguments that are fixed, how the tensors nest in forward's.

    prepared: tensors that transformers' exporter computes from the others, since a graph cannot. written: tensors
    that forward writes into.
    """

    tensors: dict[str, Any]
    fixed: dict[str, Any] = dataclasses.field(default_factory=dict)
    nesting: Nesting = dataclasses.field(default_factory=dict)
    prepared: tuple[str, ...] = ()
    written: tuple[str, ...] = ()

    def arguments(self, tensors: Mapping[str, torch.Tensor] | None = None) -> dict[str, Any]:
        """As forward takes them; with other tensors of the same names if they are given."""
        given = dict(self.tensors if tensors is None else tensors)
        given |= {name: given[name].clone() for name in self.written if name in given}
        return {**nest(given, self.nesting), **self.fixed}

    def run(self, model: torch.nn.Module, tensors: Mapping[str, torch.Tensor] | None = None) -> Any:
        """What the model returns."""
        with torch.no_grad():
            return invoke(model, self.arguments(tensors))


@dataclasses.dataclass
class Traced:
    """What a traced forward returned: a description with symbols in it; None where torch took it apart itself."""

    structure: Structure | None = None
    #: input of lengths -> the dimension that they count along, as `TensorSpec.counts` says it
    counts: dict[str, str] = dataclasses.field(default_factory=dict)


#: The inputs of the forward that is being traced, and what is found out about them.
_now: list[tuple[dict[str, Any], Traced]] = []


def counts(lengths: torch.Tensor, size: Any, in_order: bool) -> bool:
    """Note that `lengths` are those of sequences padded to `size`. False where they are none of the model's inputs."""
    return _noted(lengths, size, "sorted " if in_order else "")


def holds_each(places: torch.Tensor, size: Any) -> bool:
    """Note that `places` are an order: every number below `size` is among them once. As `counts`."""
    return _noted(places, size, EACH)


def _noted(tensor: torch.Tensor, size: Any, how: str) -> bool:
    tensors, traced = _now[-1] if _now else ({}, Traced())
    name = next((name for name, one in tensors.items() if one is tensor), None)
    if name is None:
        return False
    traced.counts[name] = how + (str(size.node.expr) if isinstance(size, torch.SymInt) else str(size))
    return True


@contextlib.contextmanager
def flat_forward(model: torch.nn.Module, call: Call, traced: Traced | None = None) -> Iterator[dict[str, str]]:
    """Give forward one parameter per tensor, and all else fixed. Yields input -> name of that parameter.

    traced: filled in, and forward then returns a tuple of tensors.
    """
    names = {n: p + "_" if p in _RESERVED else p for n, p in parameter_names(call.tensors).items()}
    original, own = model.forward, vars(model).get("forward")
    signature = inspect.signature(original)
    plain = not (call.fixed or call.nesting or call.written or any(names[name] != name for name in names))
    named = all(p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in signature.parameters.values())
    if traced is None and plain and named:
        yield names
        return
    hooks = {name: vars(model)[name] for name in _HOOKS} if traced is not None else {}
    hooks = {name: table for name, table in hooks.items() if table}

    def forward(**tensors: Any) -> Any:
        given = {name: tensors[names[name]] for name in names}
        arguments = call.arguments(given)
        if traced is not None:
            traced.counts.clear()  # of another try
            _now[:] = [(given, traced)]
        args, kwargs = by_position(signature, arguments, hooked=bool(hooks))
        with _as_it_was(model, original, forward, hooks) if hooks else contextlib.nullcontext():
            # With the model's own hooks, but not counted as another call of it.
            out = torch.nn.Module._call_impl(model, *args, **kwargs) if hooks else original(*args, **kwargs)
        return out if traced is None else _flat(out, traced)

    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names.values()]
    )
    model.forward = forward
    vars(model).update({name: OrderedDict() for name in hooks})
    try:
        yield names
    finally:
        _now.clear()
        vars(model).update(hooks)
        # Not left behind as an attribute where it was the class's: a copy of the model would share it.
        vars(model).pop("forward", None)
        if own is not None:
            model.forward = own


@contextlib.contextmanager
def _as_it_was(model: Any, original: Any, ours: Any, hooks: Mapping[str, Any]) -> Iterator[None]:
    model.forward = original
    vars(model).update(hooks)
    try:
        yield
    finally:
        model.forward = ours
        vars(model).update({name: OrderedDict() for name in hooks})


def _flat(out: Any, traced: Traced) -> tuple[Any, ...]:
    flat, structure = describe_output(out)

    def told(size: Any) -> Structure:
        if not free_unbacked_symbols(size):
            return {"kind": "size", "value": size}
        flat.append(size)  # read out of a tensor: the tensor is what the graph returns
        return {"kind": "number", "index": len(flat) - 1}

    traced.structure = with_symbols(structure, told)
    if not flat:
        raise CaptureError("The model returns no tensor, so there is nothing that an engine could compute.")
    return tuple(flat)


def parameter_names(tensors: Iterable[str]) -> dict[str, str]:
    """input -> an identifier: "added_cond_kwargs.text_embeds" is added_cond_kwargs_text_embeds."""
    found: dict[str, str] = {}
    for name in tensors:
        plain = re.sub(r"\W", "_", name)
        while plain in found.values():
            plain += "_"
        found[name] = plain
    return found
