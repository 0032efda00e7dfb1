# SPDX-License-Identifier: Apache-2.0
"""What a model returns: taken apart into flat tensors and a description in JSON, and put together again.

The description ("structure") is one of

    {"kind": "tensor", "index": 3}                             the fourth of the flat tensors
    {"kind": "constant", "value": 1.5}                         a number, string, bool or None
    {"kind": "tuple" | "list", "items": [...]}
    {"kind": "dict", "items": {...}}
    {"kind": "namedtuple", "name": "Pair", "items": {...}}
    {"kind": "output", "class": "transformers....", "fields": [...], "items": {...}}
    {"kind": "cache", "class": "DynamicCache", "items": [{"keys": ..., "values": ...}, ...]}

The flat tensors are in the order in which torch.export lists them.
"""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections import OrderedDict, namedtuple
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from paritas.errors import CaptureError, PortError

Structure = dict[str, Any]

#: The only classes that a description may name. Importing any module that a file names would run its code.
_OUTPUT_CLASS = re.compile(r"(transformers|diffusers)(\.[a-z][a-z0-9_]*)+\.[A-Z][A-Za-z0-9_]*")


class Output(OrderedDict[str, Any]):
    """The original's output class where transformers is not: by attribute, key or position, as that one.

    `output.pooler_output`, `output["pooler_output"]` and `output[1]` are the same; fields that the original
    left at None are None as attributes, and absent as keys and positions.
    """

    def __init__(self, items: Mapping[str, Any], fields: Sequence[str] = ()):
        super().__init__(items)
        object.__setattr__(self, "_fields", tuple(fields))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_fields":
            raise AttributeError(name)
        if name in self:
            return OrderedDict.__getitem__(self, name)
        if name in self._fields:
            return None
        raise AttributeError(f"This output has no {name!r}. It has: {', '.join(self)}.")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __getitem__(self, key: Any) -> Any:
        return OrderedDict.__getitem__(self, key) if isinstance(key, str) else self.to_tuple()[key]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self), self._fields)

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(self.values())


# --- taking apart ------------------------------------------------------------------------------


def describe_output(out: Any) -> tuple[list[Any], Structure]:
    """The tensors of what a model returned, and how they make it.

    Knows tensors of torch, NumPy and MindSpore, ModelOutput, tuple, list, dict, namedtuple, transformers'
    caches, numbers, strings and None. Raises `CaptureError` naming the place of anything else.
    """
    flat: list[Any] = []
    return flat, _describe(out, flat, "the output")


def _describe(value: Any, flat: list[Any], where: str) -> Structure:
    if value is None or type(value) in (bool, int, float, str):
        return {"kind": "constant", "value": value}
    if is_tensor(value):
        flat.append(value)
        return {"kind": "tensor", "index": len(flat) - 1}
    if _is_output(type(value)):
        cls = type(value)
        items = {key: _describe(item, flat, f"{where}.{key}") for key, item in value.items()}
        fields = list(getattr(cls, "__dataclass_fields__", items))
        return {
            "kind": "output",
            "class": f"{cls.__module__}.{cls.__qualname__}",
            "fields": fields,
            "items": items,
        }
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        items = {key: _describe(getattr(value, key), flat, f"{where}.{key}") for key in value._fields}
        return {"kind": "namedtuple", "name": type(value).__name__, "items": items}
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {"kind": kind, "items": [_describe(v, flat, f"{where}[{i}]") for i, v in enumerate(value)]}
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise CaptureError(f"{where} is a dict with the key {odd[0]!r}; only strings can be kept.")
        return {"kind": "dict", "items": {k: _describe(v, flat, f"{where}.{k}") for k, v in value.items()}}
    if _is_cache(value):
        return _describe_cache(value, flat, where)
    raise CaptureError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which no engine can return. "
        "Wrap the model in a module that returns tensors, tuples, lists, dicts or a ModelOutput."
    )


def _describe_cache(cache: Any, flat: list[Any], where: str) -> Structure:
    if hasattr(cache, "self_attention_cache"):
        parts = ("self_attention_cache", "cross_attention_cache")
        items: Any = {part: _describe(getattr(cache, part), flat, f"{where}.{part}") for part in parts}
    else:
        items = []
        for index, layer in enumerate(cache.layers):
            tensors = {key: item for key, item in vars(layer).items() if is_tensor(item)}
            items.append({key: _describe(item, flat, f"{where}[{index}]") for key, item in tensors.items()})
    return {"kind": "cache", "class": type(cache).__name__, "items": items}


def is_tensor(value: Any) -> bool:
    roots = {(cls.__module__.partition(".")[0], cls.__name__) for cls in type(value).__mro__}
    return not roots.isdisjoint({("torch", "Tensor"), ("mindspore", "Tensor"), ("numpy", "ndarray")})


def _is_output(cls: type) -> bool:
    names = {(base.__module__.partition(".")[0], base.__name__) for base in cls.__mro__}
    return not names.isdisjoint({("transformers", "ModelOutput"), ("diffusers", "BaseOutput")})


def _is_cache(value: Any) -> bool:
    ours = any(cls.__module__ == "transformers.cache_utils" for cls in type(value).__mro__)
    return ours and (hasattr(value, "layers") or hasattr(value, "self_attention_cache"))


def leaf_names(structure: Mapping[str, Any]) -> list[str]:
    """A name for each flat tensor: "last_hidden_state", "hidden_states.0", "output" for a bare one."""
    names: dict[int, str] = {}

    def visit(node: Mapping[str, Any], path: str) -> None:
        if node["kind"] == "tensor":
            names[node["index"]] = path or "output"
        for key, child in _children(node):
            name = f"{path}.{key}" if path else f"output_{key}" if key.isdigit() else key
            visit(child, name)

    visit(structure, "")
    return [names[index] for index in sorted(names)]


def _children(node: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    items = node.get("items", ())
    if isinstance(items, Mapping):
        yield from items.items()
    else:
        for index, item in enumerate(items):
            if "kind" in item:
                yield str(index), item
            else:  # a layer of a cache
                yield from ((f"{index}.{key}", child) for key, child in item.items())


# --- putting together --------------------------------------------------------------------------


def build_output(structure: Mapping[str, Any], flat: Sequence[Any], framework: str) -> Any:
    """What the original returns, made of `flat`: tensors of `framework`, in the manifest's order.

    The original's own class where the caller speaks torch or has imported transformers, else an `Output`,
    which reads the same. Raises `PortError` for a description that Paritas did not write.
    """
    own_class = framework == "torch" or "transformers" in sys.modules
    try:
        return _build(structure, flat, own_class)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise PortError(f"The port's description of its output is damaged: {error!r}.") from error


def _build(node: Mapping[str, Any], flat: Sequence[Any], own_class: bool) -> Any:
    kind = node["kind"]
    if kind == "tensor":
        return flat[node["index"]]
    if kind == "constant":
        return node["value"]
    items = node["items"]
    if kind == "cache":
        return _build_cache(node, flat, own_class)
    if kind in ("tuple", "list"):
        built = [_build(item, flat, own_class) for item in items]
        return tuple(built) if kind == "tuple" else built
    named = {key: _build(item, flat, own_class) for key, item in items.items()}
    if kind == "dict":
        return named
    if kind == "namedtuple":
        return namedtuple(node["name"], named.keys())(**named)
    if kind == "output":
        cls = _output_class(node["class"]) if own_class else None
        return Output(named, node["fields"]) if cls is None else _fill(cls, named)
    raise KeyError(kind)


@functools.cache
def _output_class(name: str) -> Any:
    """The class of that qualified name if it is an output class of transformers or diffusers, else None."""
    if not _OUTPUT_CLASS.fullmatch(name):
        return None
    module, _, attribute = name.rpartition(".")
    try:
        cls = getattr(sys.modules.get(module) or importlib.import_module(module), attribute, None)
    except ImportError:
        return None
    return cls if isinstance(cls, type) and _is_output(cls) else None


def _fill(cls: Any, items: Mapping[str, Any]) -> Any:
    # Not cls(**items): its __post_init__ takes a first field that is no torch tensor for a list of pairs.
    output = cls.__new__(cls)
    for field in getattr(cls, "__dataclass_fields__", ()):
        object.__setattr__(output, field, None)
    for key, value in items.items():
        output[key] = value
    return output


def _build_cache(node: Mapping[str, Any], flat: Sequence[Any], own_class: bool) -> Any:
    items = node["items"]
    if isinstance(items, Mapping):
        parts = [_build(item, flat, own_class) for item in items.values()]
        utils = sys.modules.get("transformers.cache_utils")
        if own_class and utils and all(isinstance(part, utils.Cache) for part in parts):
            return utils.EncoderDecoderCache(*parts)
        return tuple(parts)  # of another framework's tensors, which no cache holds
    layers = [tuple(_build(item, flat, own_class) for item in layer.values()) for layer in items]
    utils = sys.modules.get("transformers.cache_utils")
    tensors = sys.modules.get("torch")
    if (
        own_class
        and utils
        and tensors
        and all(isinstance(t, tensors.Tensor) for layer in layers for t in layer)
    ):
        return utils.DynamicCache(layers)
    return tuple(layers)
