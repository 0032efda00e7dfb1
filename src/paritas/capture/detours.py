# SPDX-License-Identifier: Apache-2.0
"""What torch does on the way to a graph, and a capture can do without: half of its time for a decoder.

With free sizes torch finds the shape of a product, an attention or a concatenation by running its decomposition on
tensors without values, and asks at each step of it how strides lie. Where sizes are the same numbers, or have to be
equal, there is nothing else to ask. All else goes torch's own way.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch._export.passes.replace_set_grad_with_hop_pass import replace_set_grad_with_hop_pass
from torch._subclasses.fake_impls import get_fast_op_impls
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental import proxy_tensor

aten = torch.ops.aten
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd

#: The shape of a contiguous result of the first tensor's dtype; None where it is not plain.
Rule = Callable[..., Sequence[Any] | None]


@contextlib.contextmanager
def cut() -> Iterator[None]:
    """While inside, torch goes these shorter ways."""
    tracing: Any = proxy_tensor
    passes: Any = sys.modules[replace_set_grad_with_hop_pass.__module__]
    described, split = tracing._extract_tensor_metadata, passes.replace_set_grad_with_hop_pass

    def without_switches(graph: torch.fx.GraphModule, signature: Any) -> Any:
        switches = [node for node in graph.graph.nodes if node.target is torch._C._set_grad_enabled]
        if any(node.args[0] != torch.is_grad_enabled() for node in switches):
            return split(graph, signature)
        for node in switches:  # which switch nothing: no need to take the graph apart there and put it together again
            graph.graph.erase_node(node)
        return graph, signature

    # What a node's memory format is costs more than its shape, and nobody asks it of a graph.
    tracing._extract_tensor_metadata = lambda value: None
    passes.replace_set_grad_with_hop_pass = without_switches
    try:
        with _plain_shapes(), _imported_only():
            yield
    finally:
        tracing._extract_tensor_metadata, passes.replace_set_grad_with_hop_pass = described, split


@contextlib.contextmanager
def _imported_only() -> Iterator[None]:
    """transformers' exporter patches classes of 60 models, and imports all these models for it, in 1.5 seconds.

    A model whose module nobody has imported is not the one that is traced.
    """
    utils: Any = sys.modules.get("transformers.exporters.utils")
    if utils is None:
        yield
        return
    own = utils.import_dotted_path

    def found(path: str, missing_ok: bool = False) -> Any:
        parts = path.split(".")
        lengths = (length for length in range(len(parts), 0, -1) if ".".join(parts[:length]) in sys.modules)
        known = next(lengths, 0)
        if missing_ok and 0 < known < len(parts) and parts[known] not in vars(sys.modules[".".join(parts[:known])]):
            return None
        return own(path, missing_ok)

    utils.import_dotted_path = found
    try:
        yield
    finally:
        utils.import_dotted_path = own


@contextlib.contextmanager
def _plain_shapes() -> Iterator[None]:
    known: dict[Any, Any] = get_fast_op_impls()
    taken = {operator: known.get(operator) for operator in RULES}
    known.update((operator, _leaf(operator, rule)) for operator, rule in RULES.items())
    for operator, rule in COMPOSITE.items():
        operator.py_kernels[_COMPOSITE] = _composite(operator, rule)
        operator._dispatch_cache.clear()
    try:
        yield
    finally:
        for operator, own in taken.items():
            del known[operator]
            if own is not None:
                known[operator] = own
        for operator in COMPOSITE:
            del operator.py_kernels[_COMPOSITE]
            operator._dispatch_cache.clear()


def _leaf(operator: Any, rule: Rule) -> Callable[..., Any]:
    known: dict[Any, Any] = get_fast_op_impls()

    def infer(mode: FakeTensorMode, *args: Any, **kwargs: Any) -> Any:
        shape = rule(*args, **kwargs)
        if shape is not None:
            like = args[0][0] if isinstance(args[0], list | tuple) else args[0]
            return FakeTensor(mode, torch.empty(shape, dtype=like.dtype, device="meta"), like.device)
        del known[operator]  # or torch would come back here
        try:
            with mode:
                return operator(*args, **kwargs)
        finally:
            known[operator] = infer

    return infer


def _composite(operator: Any, rule: Rule) -> Callable[..., Any]:
    def infer(*args: Any, **kwargs: Any) -> Any:
        shape = rule(*args, **kwargs)
        if shape is None:
            return operator._op_dk(_COMPOSITE, *args, **kwargs)
        return args[0].new_empty(shape)

    return infer


def same(one: Any, other: Any) -> bool:
    """Whether two sizes are equal: the same number, the same expression, or two that have to be equal here.

    Of the last, torch asks the same question on its own way, and it becomes a condition of the graph there too.
    """
    if type(one) is int and type(other) is int:
        return one == other
    if not all(isinstance(size, int | torch.SymInt) for size in (one, other)):
        return False
    first, second = _expression(one), _expression(other)
    if first == second:
        return True
    hints = [size if type(size) is int else size.node.hint if size.node.has_hint() else None for size in (one, other)]
    if None in hints or hints[0] != hints[1]:
        return False
    torch._check(one == other)
    return True


def _expression(size: Any) -> Any:
    return size if type(size) is int else size.node.expr


def _alike(ones: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(ones) == len(others) and all(map(same, ones, others))


def _are_plain(*tensors: Any) -> bool:
    """Whether these are dense tensors of one floating dtype and one device."""
    first = tensors[0]
    return all(
        type(tensor) in (FakeTensor, torch.nn.Parameter)
        and tensor.layout is torch.strided
        and tensor.dtype is first.dtype
        and tensor.device == first.device
        and tensor.is_floating_point()
        for tensor in tensors
    )


def linear(input: Any, weight: Any, bias: Any = None) -> Sequence[Any] | None:
    tensors = (input, weight) if bias is None else (input, weight, bias)
    if not _are_plain(*tensors) or weight.dim() != 2 or input.dim() < 2 or not same(input.shape[-1], weight.shape[1]):
        return None
    if bias is not None and not _alike(bias.shape, weight.shape[:1]):
        return None
    return [*input.shape[:-1], weight.shape[0]]


def attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: Any = None,
    enable_gqa: bool = False,
) -> Sequence[Any] | None:
    if enable_gqa or dropout_p or not _are_plain(query, key, value) or query.dim() < 3:
        return None
    if not (query.dim() == key.dim() == value.dim() and same(query.shape[-1], key.shape[-1])):
        return None
    if not (_alike(query.shape[:-2], key.shape[:-2]) and _alike(key.shape[:-1], value.shape[:-1])):
        return None
    if attn_mask is not None:
        scores = [*query.shape[:-1], key.shape[-2]]
        fits = attn_mask.dim() == len(scores) and all(
            (type(one) is int and one == 1) or same(one, other)
            for one, other in zip(attn_mask.shape, scores, strict=True)
        )
        if not fits or is_causal or attn_mask.dtype not in (torch.bool, query.dtype):
            return None
    return [*query.shape[:-1], value.shape[-1]]


def cat(tensors: Sequence[Any], dim: int = 0) -> Sequence[Any] | None:
    tensors = [
        tensor for tensor in tensors if not (tensor.dim() == 1 and type(tensor.shape[0]) is int and not tensor.shape[0])
    ]
    if not tensors or not _are_plain(*tensors):
        return None
    first = tensors[0]
    rank = first.dim()
    if rank < 2 or any(tensor.dim() != rank or _is_channels_last(tensor) for tensor in tensors):
        return None
    dim %= rank
    rest = [size for axis, size in enumerate(first.shape) if axis != dim]
    for tensor in tensors[1:]:
        if not _alike([size for axis, size in enumerate(tensor.shape) if axis != dim], rest):
            return None
    whole = first.shape[dim]
    for tensor in tensors[1:]:
        whole = whole + tensor.shape[dim]
    return [*first.shape[:dim], whole, *first.shape[dim + 1 :]]


def group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 0.0, cudnn_enabled: bool = True
) -> Sequence[Any] | None:
    tensors = [tensor for tensor in (input, weight, bias) if tensor is not None]
    if not _are_plain(*tensors) or input.dim() < 3 or _is_channels_last(input):
        return None
    channels = input.shape[1]
    if type(channels) is not int or type(num_groups) is not int or num_groups < 1 or channels % num_groups:
        return None
    return input.shape if all(_alike(tensor.shape, [channels]) for tensor in tensors[1:]) else None


def layer_norm(
    input: Any, normalized_shape: Sequence[Any], weight: Any = None, bias: Any = None, eps: float = 0.0, _: bool = True
) -> Sequence[Any] | None:
    tensors = [tensor for tensor in (input, weight, bias) if tensor is not None]
    count = len(normalized_shape)
    if not _are_plain(*tensors) or not 0 < count < input.dim() or _is_channels_last(input):
        return None
    alike = _alike(input.shape[-count:], normalized_shape)
    return input.shape if alike and all(_alike(one.shape, normalized_shape) for one in tensors[1:]) else None


def _is_channels_last(tensor: Any) -> bool:
    """Whether images may lie with their channels last, in which way torch would lay the result."""
    stride = tensor.stride(1) if tensor.dim() in (4, 5) else 0
    return type(stride) is int and stride == 1


#: Operators that torch asks the shape of, and those that it first takes apart.
RULES: dict[Any, Rule] = {aten.cat.default: cat}
COMPOSITE: dict[Any, Rule] = {
    aten.linear.default: linear,
    aten.scaled_dot_product_attention.default: attention,
    aten.group_norm.default: group_norm,
    aten.layer_norm.default: layer_norm,
}
