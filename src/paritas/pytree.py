# SPDX-License-Identifier: Apache-2.0
"""What a model returns: taken apart into flat tensors and a description in JSON, and put together again.

The description ("structure") is one of

    {"kind": "tensor", "index": 3}                             the fourth of the flat tensors
    {"kind": "constant", "value": 1.5}                         a number, string, bool or None
    {"kind": "tuple" | "list", "items": [...]}
    {"kind": "number", "index": 3}                             the number that the fourth is: `x.sum().item()`
    {"kind": "size", "value": "s0//2"}                         a size: a formula of the inputs' dimensions
    {"kind": "shape", "items": [...]}                          a torch.Size
    {"kind": "dict", "items": {...}}                           with "keys" where they are whole numbers
    {"kind": "namedtuple", "name": "Pair", "class": "module.Pair", "items": {...}}
    {"kind": "record", "class": "module.Result", "items": {...}}        a dataclass, or a distribution of diffusers'
    {"kind": "output", "class": "transformers....", "fields": [...], "items": {...}}
    {"kind": "cache", "class": "DynamicCache", "items": [{"keys": ..., "values": ...}, ...]}
                                                               and "conv_states.0", "recurrent_states.0" of a layer

The flat tensors are in the order in which torch.export lists them.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
import sys
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from paritas import formulas
from paritas.errors import CaptureError, PortError, ReturnsObject

Structure = dict[str, Any]

#: The only classes that a description may name. Importing any module that a file names would run its code.
_OUTPUT_CLASS = re.compile(r"(transformers|diffusers)(\.[a-z][a-z0-9_]*)+\.[A-Z][A-Za-z0-9_]*")


#: What an autoencoder's `encode` returns, a plain object that holds its moments: whoever has it draws from it.
_DISTRIBUTION = re.compile(r"diffusers(\.[a-z][a-z0-9_]*)+\.[A-Z][A-Za-z0-9_]*Distribution")

#: What a layer of a cache keeps of all tokens in a fixed size, by transformers' names.
STATES = ("conv_states", "recurrent_states")

#: torch's own named tuples: what `x.max(1)` returns.
_RETURN_TYPE = re.compile(r"torch\.return_types\.[a-z][a-z_0-9]*")

#: The callers' own classes by name, as far as this process has met them: a file cannot make it import others.
_met: dict[str, type] = {}


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

    Knows tensors of torch, NumPy and MindSpore, ModelOutput, dataclasses, tuple, list, dict, namedtuple,
    transformers' caches, numbers, strings and None; and while a model is traced, its sizes, which stay symbols in
    the description. Raises `CaptureError` naming the place of anything else.
    """
    flat: list[Any] = []
    return flat, _describe(out, flat, "the output")


def _describe(value: Any, flat: list[Any], where: str) -> Structure:
    if value is None or type(value) in (bool, int, float, str):
        return {"kind": "constant", "value": value}
    if is_tensor(value):
        flat.append(value)
        return {"kind": "tensor", "index": len(flat) - 1}
    if is_symbol(value):
        return {"kind": "size", "value": value}
    cls = type(value)
    name = f"{cls.__module__}.{cls.__qualname__}"
    if _is_output(cls):
        items = {key: _describe(item, flat, f"{where}.{key}") for key, item in value.items()}
        fields = list(getattr(cls, "__dataclass_fields__", items))
        return {"kind": "output", "class": name, "fields": fields, "items": items}
    if name == "torch.nn.utils.rnn.PackedSequence":
        raise CaptureError(
            f"{where} is a PackedSequence, which no engine has. Let the model take padded tensors and their lengths, "
            "pack them in its forward, and unpack what it returns with pad_packed_sequence."
        )
    if name == "torch.Size":
        return {"kind": "shape", "items": [_describe(v, flat, f"{where}[{i}]") for i, v in enumerate(value)]}
    if parts := _fields_of(cls):
        _met[name] = cls
        items = {key: _describe(getattr(value, key), flat, f"{where}.{key}") for key in parts}
        if not isinstance(value, tuple):
            return {"kind": "record", "class": name, "items": items}
        return {"kind": "namedtuple", "name": cls.__name__, "class": name, "items": items}
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {"kind": kind, "items": [_describe(v, flat, f"{where}[{i}]") for i, v in enumerate(value)]}
    if isinstance(value, Mapping):
        return _describe_mapping(value, flat, where)
    if _is_cache(value):
        return _describe_cache(value, flat, where)
    if _DISTRIBUTION.fullmatch(name):
        items = {key: _describe(item, flat, f"{where}.{key}") for key, item in vars(value).items()}
        return {"kind": "record", "class": name, "items": items}
    raise ReturnsObject(
        f"{where} is a {name}, which no engine can return. "
        "Wrap the model in a module that returns tensors, tuples, lists, dicts, dataclasses or a ModelOutput."
    )


def _describe_mapping(value: Mapping[Any, Any], flat: list[Any], where: str) -> Structure:
    for key in value:
        if type(key) not in (str, int) or (type(key) is int and str(key) in value):
            raise CaptureError(f"{where} is a dict with the key {key!r}; only strings and whole numbers can be kept.")
    items = {str(key): _describe(item, flat, f"{where}.{key}") for key, item in value.items()}
    found: Structure = {"kind": "dict", "items": items}
    if any(type(key) is int for key in value):
        found["keys"] = list(value)
    if isinstance(value, OrderedDict):
        found["class"] = "OrderedDict"
    return found


def _fields_of(cls: type) -> tuple[str, ...]:
    """The names of the parts of a namedtuple, a dataclass or one of torch's own named tuples; () for all else."""
    if issubclass(cls, tuple):
        if cls.__module__ == "torch.return_types":
            return tuple(cls.__match_args__)  # type: ignore[attr-defined]
        return tuple(getattr(cls, "_fields", ()))
    return tuple(field.name for field in dataclasses.fields(cls)) if dataclasses.is_dataclass(cls) else ()


def is_symbol(value: Any) -> bool:
    """Whether this is a size of a model that is being traced."""
    cls = type(value)
    return cls.__module__ == "torch" and cls.__name__ in ("SymInt", "SymFloat", "SymBool")


def with_symbols(structure: Structure, told: Callable[[Any], Structure]) -> Structure:
    """The description with what `told` makes of each size in it."""
    if structure["kind"] == "size":
        return told(structure["value"])
    items = structure.get("items")
    if isinstance(items, Mapping):
        return {**structure, "items": {key: with_symbols(item, told) for key, item in items.items()}}
    if items is None or structure["kind"] == "cache":
        return structure
    return {**structure, "items": [with_symbols(item, told) for item in items]}


def has_sizes(structure: Mapping[str, Any]) -> bool:
    """Whether some of the output follows from the inputs' sizes."""
    return structure.get("kind") == "size" or any(has_sizes(child) for _, child in _children(structure))


def has_states(structure: Mapping[str, Any]) -> bool:
    """Whether it is a cache with a layer that keeps states of a fixed size."""
    return structure["kind"] == "cache" and any(
        key.startswith(STATES) for layer in structure["items"] for key in layer if isinstance(layer, Mapping)
    )


def _describe_cache(cache: Any, flat: list[Any], where: str) -> Structure:
    if hasattr(cache, "self_attention_cache"):
        parts = ("self_attention_cache", "cross_attention_cache")
        items: Any = {part: _describe(getattr(cache, part), flat, f"{where}.{part}") for part in parts}
    else:
        items = []
        for index, layer in enumerate(cache.layers):
            tensors = _tensors_of(layer)
            items.append({key: _describe(item, flat, f"{where}[{index}]") for key, item in tensors.items()})
    return {"kind": "cache", "class": type(cache).__name__, "items": items}


def _tensors_of(layer: Any) -> dict[str, Any]:
    """Of a layer of a cache: keys and values, and states of a fixed size, which are numbered."""
    found = {key: item for key, item in vars(layer).items() if is_tensor(item)}
    for kind in STATES:
        states = getattr(layer, kind, None)
        if isinstance(states, Mapping):
            found |= {f"{kind}.{i}": state for i, state in states.items() if is_tensor(state)}
    return found


def is_tensor(value: Any) -> bool:
    classes = {f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in type(value).__mro__}
    return not classes.isdisjoint({"torch.Tensor", "mindspore.Tensor", "numpy.ndarray"})


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
        if node["kind"] in ("tensor", "number"):
            names[node["index"]] = path or "output"
        for key, child in _children(node):
            name = f"{path}.{key}" if path else f"output_{key}" if key.isdigit() else key
            visit(child, name)

    visit(structure, "")
    return [names[index] for index in sorted(names)]


def described(structure: Any, count: int | None = None) -> bool:
    """Whether it is a description as above, of `count` tensors if that is known: `build_output` can follow it."""
    indices: list[Any] = []
    try:
        _follow(structure, indices, 0)
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return sorted(indices) == list(range(len(indices) if count is None else count))


def _follow(node: Any, indices: list[int], depth: int) -> None:
    """Every tensor's index. Raises one of the errors above where a field is missing or of another type."""
    kind, items = node["kind"], node.get("items")
    if depth > 60:
        raise ValueError("nested too deeply")
    if kind in ("tensor", "number"):
        if type(node["index"]) is not int:
            raise TypeError("index")
        indices.append(node["index"])
    elif kind == "constant":
        node["value"]
    elif kind == "size":
        if type(node["value"]) is not int:
            formulas.parsed(node["value"])  # a NoFormula is a ValueError
    elif kind in ("tuple", "list", "shape"):
        if not isinstance(items, list | tuple):
            raise TypeError("items")
        for item in items:
            _follow(item, indices, depth + 1)
    elif kind == "cache" and isinstance(items, list | tuple):
        for layer in items:
            for item in layer.values():
                _follow(item, indices, depth + 1)
    elif kind in ("dict", "namedtuple", "record", "output", "cache") and isinstance(items, Mapping):
        if kind == "output" and not (isinstance(node["class"], str) and isinstance(node["fields"], list)):
            raise TypeError("class and fields")
        if kind == "namedtuple":
            namedtuple(node["name"], items.keys())  # its names are ones that a class can have
        for item in items.values():
            _follow(item, indices, depth + 1)
    else:
        raise KeyError(kind)


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


def build_output(
    structure: Mapping[str, Any], flat: Sequence[Any], framework: str, sizes: Mapping[str, int] | None = None
) -> Any:
    """What the original returns, made of `flat`: tensors of `framework`, in the manifest's order.

    The original's own class where the caller speaks torch or has imported transformers, else an `Output`,
    which reads the same. sizes: of the inputs' dynamic dimensions. Raises `PortError` for a description that
    Paritas did not write.
    """
    own_class = framework == "torch" or "transformers" in sys.modules
    try:
        return _Building(flat, own_class, framework == "torch", sizes or {}).of(structure)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise PortError(f"The port's description of its output is damaged: {error!r}.") from error


@dataclasses.dataclass(frozen=True)
class _Building:
    flat: Sequence[Any]
    own_class: bool
    torch: bool
    sizes: Mapping[str, int]

    def of(self, node: Mapping[str, Any]) -> Any:
        kind = node["kind"]
        if kind == "tensor":
            return self.flat[node["index"]]
        if kind == "number":
            return self.flat[node["index"]].item()
        if kind == "constant":
            return node["value"]
        if kind == "size":
            return formulas.value(node["value"], self.sizes)
        items = node["items"]
        if kind == "cache":
            return self._cache(items)
        if kind in ("tuple", "list", "shape"):
            built = [self.of(item) for item in items]
            if kind == "shape" and self.torch:
                return sys.modules["torch"].Size(built)
            return built if kind == "list" else tuple(built)
        named = {key: self.of(item) for key, item in items.items()}
        if kind == "dict":
            keys = node.get("keys") or list(named)
            cls: Any = OrderedDict if node.get("class") == "OrderedDict" else dict
            return cls(zip(keys, named.values(), strict=True))
        if kind == "namedtuple":
            return self._named_tuple(node, named)
        if kind == "record":
            own = _met.get(node["class"]) or (distribution_class(node["class"]) if self.own_class else None)
            return Output(named, list(named)) if own is None else _record(own, named)
        if kind == "output":
            cls = _output_class(node["class"]) if self.own_class else None
            return Output(named, node["fields"]) if cls is None else _fill(cls, named)
        raise KeyError(kind)

    def _named_tuple(self, node: Mapping[str, Any], named: Mapping[str, Any]) -> Any:
        name = node.get("class", "")
        if self.torch and _RETURN_TYPE.fullmatch(name):
            return getattr(sys.modules["torch"].return_types, node["name"])(tuple(named.values()))
        own: Any = _met.get(name)
        if own is not None and getattr(own, "_fields", None) == tuple(named):
            return own._make(named.values())
        return namedtuple(node["name"], named.keys())(**named)

    def _cache(self, items: Any) -> Any:
        utils = sys.modules.get("transformers.cache_utils") if self.own_class else None
        if isinstance(items, Mapping):
            parts = [self.of(item) for item in items.values()]
            if utils and all(isinstance(part, utils.Cache) for part in parts):
                return utils.EncoderDecoderCache(*parts)
            return tuple(parts)  # of another framework's tensors, which no cache holds
        layers = [{key: self.of(item) for key, item in layer.items()} for layer in items]
        tensors = sys.modules.get("torch")
        if not (utils and tensors and all(isinstance(t, tensors.Tensor) for x in layers for t in x.values())):
            return tuple(tuple(layer.values()) for layer in layers)
        states = any(key.startswith(STATES) for layer in layers for key in layer)
        if all(layers) and not states:
            return utils.DynamicCache([tuple(layer.values()) for layer in layers])
        cache = utils.DynamicCache()
        # Beside states, a layer without tensors keeps none; beside keys and values, it has none yet: an encoder's.
        empty = utils.DummyLayer if states else utils.DynamicLayer
        cache.layers = [_layer_of_states(utils, layer) if layer else empty() for layer in layers]
        return cache


def _layer_of_states(utils: Any, tensors: Mapping[str, Any]) -> Any:
    """A layer as transformers leaves it after its first tokens. What it writes in place are copies."""
    states = [key.split(".") for key in tensors if key.startswith(STATES)]
    if not states:
        layer = utils.DynamicLayer()
    else:
        number = 1 + max(int(index) for _, index in states)
        mixed = "keys" in tensors
        cls = utils.LinearAttentionAndFullAttentionLayer if mixed else utils.LinearAttentionLayer
        layer = cls(number_of_states=number)
        layer.has_previous_state = dict.fromkeys(range(number), True)
    for kind, index in states:
        tensor = tensors[f"{kind}.{index}"]
        getattr(layer, kind)[int(index)] = tensor.clone()
        getattr(layer, f"is_{kind}_initialized")[int(index)] = True
        layer.dtype, layer.device = tensor.dtype, tensor.device
        if kind == "conv_states":
            layer.conv_kernel_size[int(index)] = tensor.shape[-1]
    if "keys" in tensors:
        layer.update(tensors["keys"], tensors["values"])
    return layer


def _record(cls: type, items: Mapping[str, Any]) -> Any:
    # Not cls(**items): what a class does with its arguments was done before it was taken apart.
    made: Any = object.__new__(cls)
    for name, value in items.items():
        object.__setattr__(made, name, value)
    return made


@functools.cache
def _output_class(name: str) -> Any:
    """The class of that qualified name if it is an output class of transformers or diffusers, else None."""
    cls = _class_named(name) if _OUTPUT_CLASS.fullmatch(name) else None
    return cls if cls is not None and _is_output(cls) else None


@functools.cache
def distribution_class(name: str) -> Any:
    """The class of that qualified name if it is a distribution of diffusers', else None."""
    return _class_named(name) if _DISTRIBUTION.fullmatch(name) else None


def _class_named(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        cls = getattr(sys.modules.get(module) or importlib.import_module(module), attribute, None)
    except ImportError:
        return None
    return cls if isinstance(cls, type) else None


def _fill(cls: Any, items: Mapping[str, Any]) -> Any:
    # Not cls(**items): its __post_init__ takes a first field that is no torch tensor for a list of pairs.
    output = cls.__new__(cls)
    for field in getattr(cls, "__dataclass_fields__", ()):
        object.__setattr__(output, field, None)
    for key, value in items.items():
        output[key] = value
    return output
