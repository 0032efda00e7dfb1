# SPDX-License-Identifier: Apache-2.0
"""A graph of a model in training mode: what it draws and what it remembers become operators without side effects.

Dropout is a mask, drawn by an operator of ours, times its argument. An engine draws the mask itself, or gets it as an
input (`with_masks_as_inputs`): drawn by torch in the order of the model's own code, it is then the original's, bit for
bit. A batch norm is one operator that takes its statistics of the batch and says what becomes of the running ones.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch._guards import detect_fake_mode
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Node

from paritas.capture import autocast
from paritas.capture.normalise import dims_of, equal_inputs
from paritas.capture.outputs import renamed
from paritas.dtypes import dtype_name
from paritas.errors import CaptureError, EngineError
from paritas.program import Origin, Program, TensorSpec

aten = torch.ops.aten

# --- operators -----------------------------------------------------------------------------------------------


@torch.library.custom_op("paritas::dropout_mask", mutates_args=())
def dropout_mask(like: torch.Tensor, p: float) -> torch.Tensor:
    """0 with probability p, else 1 / (1 - p), in the shape and dtype of `like`: what torch's dropout multiplies by.

    Laid out as `like`: torch draws in the order of memory.
    """
    return torch.dropout(torch.ones_like(like), p, True)


@dropout_mask.register_fake
def _(like: torch.Tensor, p: float) -> torch.Tensor:
    return torch.empty_like(like)


# No gradient goes on through a mask.
dropout_mask.register_autograd(lambda context, gradient: (None, None))

_library = torch.library.Library("paritas", "FRAGMENT")
_library.define(
    "attention_weights(Tensor query, Tensor key, Tensor? attn_mask, bool is_causal, float? scale, bool enable_gqa)"
    " -> Tensor"
)


def attention_weights(
    query: torch.Tensor,
    key: torch.Tensor,
    attn_mask: torch.Tensor | None,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> torch.Tensor:
    """What `scaled_dot_product_attention` multiplies its values by, computed as torch does where it drops some."""
    root = math.sqrt(1 / math.sqrt(query.shape[-1]) if scale is None else abs(scale))
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    scores = (query * (-root if scale is not None and scale < 0 else root)) @ (key.transpose(-2, -1) * root)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, -math.inf)
        scores = scores + attn_mask
    return aten._safe_softmax(scores, -1)


_library.impl("attention_weights", attention_weights, "CompositeImplicitAutograd")

_library.define(
    "batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor running_mean, Tensor running_var, float momentum,"
    " float eps) -> Tensor"
)


def batch_norm(
    input: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor,
    running_var: torch.Tensor,
    momentum: float,
    eps: float,
) -> torch.Tensor:
    """A batch norm by the statistics of the batch, of which the running ones go on where an engine computes it."""
    return aten.batch_norm.default(input, weight, bias, None, None, True, momentum, eps, False)


_library.impl("batch_norm", batch_norm, "CompositeImplicitAutograd")


# --- the model -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def in_training(model: torch.nn.Module, given: Any, halves: str = "") -> Iterator[None]:
    """The modes of `given`'s modules if it is a module in training mode, which may keep some of them out of it; else
    all of `model` is in training mode. halves: under `torch.autocast` of this dtype."""
    before = [(module, module.training) for module in model.modules()]
    modes = {}
    if isinstance(given, torch.nn.Module) and given.training:
        modes = {path: module.training for path, module in given.named_modules()}
    for path, module in model.named_modules():
        module.training = modes.get(path, True)
    try:
        with autocast.applied(halves):
            yield
    finally:
        for module, mode in before:
            module.training = mode


def with_loss(model: Any, loss: Callable[..., torch.Tensor] | None) -> Any:
    """A model with the weights and modules of this one, under their names, that returns its loss, then its output.

    The loss is called with the output, and with the argument `target` where forward is given one.
    """
    if loss is None:
        return model
    cls = type(model)
    signature = inspect.signature(cls.forward)

    def forward(self: Any, *args: Any, target: Any = None, **kwargs: Any) -> Any:
        out = cls.forward(self, *args, **kwargs)
        return (loss(out) if target is None else loss(out, target)), out

    last = inspect.Parameter("target", inspect.Parameter.KEYWORD_ONLY, default=None)
    given = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    rest = [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    forward.__signature__ = signature.replace(parameters=[*given, last, *rest])  # type: ignore[attr-defined]
    made = copy.copy(model)
    made.__class__ = type(cls.__name__, (cls,), {"__module__": cls.__module__, "forward": forward})
    made._modules = dict(model._modules)
    if isinstance(loss, torch.nn.Module) and any(True for _ in loss.parameters()):
        made._modules["loss"] = loss
    return made


# --- a traced graph ------------------------------------------------------------------------------------------

_DROPOUTS = {"aten.dropout.default", "aten.native_dropout.default"}
_FEATURES = {"aten.feature_dropout.default"}
_BATCH_NORM = "aten.batch_norm.default"
_ATTENTION = "aten.scaled_dot_product_attention.default"


def without_side_effects(program: ExportedProgram) -> None:
    """Write what a graph that torch.export has traced draws and remembers by operators of ours, before it is made
    functional."""
    graph, mode = program.graph, detect_fake_mode([node.meta.get("val") for node in program.graph.nodes])
    for node in list(graph.nodes):
        name = str(node.target) if node.op == "call_function" else ""
        if name not in _DROPOUTS | _FEATURES | {_ATTENTION, _BATCH_NORM}:
            continue
        given = _arguments(node)
        if name == _BATCH_NORM:
            if given["training"] and given["running_mean"] is not None:
                kept = [given[key] for key in ("input", "weight", "bias", "running_mean", "running_var")]
                node.target, node.kwargs = torch.ops.paritas.batch_norm.default, {}
                node.args = (*kept, float(given["momentum"]), float(given["eps"]))
            continue
        if name == _ATTENTION:
            if given["dropout_p"]:
                _drops_attention(graph, node, given, mode)
        elif given["train"] and given["p"]:
            _drops(graph, node, given, mode, whole_channels=name in _FEATURES)
    program.graph_module.recompile()


def _arguments(node: Node) -> dict[str, Any]:
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    named = dict(zip((argument.name for argument in schema), node.args, strict=False))
    return {**{a.name: a.default_value for a in schema if a.has_default_value()}, **named, **node.kwargs}


def _drops(graph: torch.fx.Graph, node: Node, given: Mapping[str, Any], mode: Any, *, whole_channels: bool) -> None:
    x = given["input"]
    value = x.meta["val"]
    with graph.inserting_before(node):
        like = x
        if whole_channels:
            shape = (*value.shape[:2], *[1] * (value.dim() - 2))
            like = _call(graph, node, mode, aten.sum.dim_IntList, x, list(range(2, len(shape))), True)
        mask = _call(graph, node, mode, torch.ops.paritas.dropout_mask.default, like, float(given["p"]))
        dropped = _call(graph, node, mode, aten.mul.Tensor, x, mask)
    node.replace_all_uses_with(dropped)
    graph.erase_node(node)


def _drops_attention(graph: torch.fx.Graph, node: Node, given: Mapping[str, Any], mode: Any) -> None:
    query, key, value = given["query"], given["key"], given["value"]
    dtype = query.meta["val"].dtype
    with graph.inserting_before(node):
        if dtype in (torch.float16, torch.bfloat16):  # torch computes all of it in float32 then
            query, key, value = (
                _call(graph, node, mode, aten._to_copy.default, x, dtype=torch.float32) for x in (query, key, value)
            )
        if given["enable_gqa"]:
            times = query.meta["val"].shape[-3] // value.meta["val"].shape[-3]
            value = _call(graph, node, mode, aten.repeat_interleave.self_int, value, int(times), -3)
        weights = _call(
            graph, node, mode, torch.ops.paritas.attention_weights.default,
            query, key, given["attn_mask"], given["is_causal"], given["scale"], given["enable_gqa"],
        )  # fmt: skip
        mask = _call(graph, node, mode, torch.ops.paritas.dropout_mask.default, weights, float(given["dropout_p"]))
        dropped = _call(graph, node, mode, aten.mul.Tensor, weights, mask)
        mixed = _call(graph, node, mode, aten.matmul.default, dropped, value)
        if mixed.meta["val"].dtype != dtype:
            mixed = _call(graph, node, mode, aten._to_copy.default, mixed, dtype=dtype)
    node.replace_all_uses_with(mixed)
    graph.erase_node(node)


def _call(graph: torch.fx.Graph, like: Node, mode: Any, target: Any, *args: Any, **kwargs: Any) -> Node:
    """A node in the place of `like`, of its module and line."""
    made = graph.call_function(target, args, kwargs)
    made.meta = copy.copy(like.meta)
    values = [a.meta["val"] if isinstance(a, Node) else a for a in args]
    with mode, torch.no_grad():
        made.meta["val"] = target(*values, **kwargs)
    return made


# --- masks as inputs -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Mask:
    """A mask that a port gets as an input.

    p: the share of zeros. dims: its sizes, formulas of the inputs' sizes. order: its dimensions as they lie in memory,
    in which torch draws. node: what draws it in the graph.
    """

    name: str
    node: str
    dtype: str
    dims: tuple[int | str, ...]
    p: float
    order: tuple[int, ...]

    def drawn(self, known: Mapping[str, int]) -> torch.Tensor:
        """By torch's generator, as the original's dropout draws it. known: what the inputs' sizes are.

        Raises `EngineError` where a size of its own does not follow from them.
        """
        from paritas import formulas

        def size(dim: int | str) -> int:
            found = dim if isinstance(dim, int) else formulas.whole(dim, known)
            if found is None:
                raise EngineError(f"The size {dim} of a dropout's mask does not follow from the inputs' sizes.")
            return found

        ones = torch.ones([size(self.dims[place]) for place in self.order], dtype=getattr(torch, self.dtype))
        back = [self.order.index(place) for place in range(len(self.order))]
        return torch.dropout(ones.permute(back), self.p, True)


def _order(value: torch.Tensor) -> tuple[int, ...]:
    """The dimensions of a tensor of a trace, the outermost in memory first."""
    strides = [stride if isinstance(stride, int) else stride.node.hint for stride in value.stride()]
    return tuple(sorted(range(len(strides)), key=lambda place: -strides[place]))


def _drawing(program: Program) -> list[Any]:
    """The nodes that draw a mask."""
    return [node for node in program.graph.nodes if node.target is torch.ops.paritas.dropout_mask.default]


def masks_of(program: Program) -> tuple[Mask, ...]:
    """What a program draws, in the order in which it does."""
    equal, found = equal_inputs(program.exported), []
    for index, node in enumerate(_drawing(program)):
        value = node.meta["val"]
        dims = tuple(dim if isinstance(dim, int) else renamed(dim, equal) for dim in dims_of(value))
        found.append(
            Mask(f"dropout_{index}", node.name, dtype_name(value.dtype), dims, float(node.args[1]), _order(value))
        )
    return tuple(found)


def with_masks_as_inputs(program: Program) -> tuple[Program, tuple[Mask, ...]]:
    """The program with an input for each mask that it draws, in the order in which they are drawn.

    The graph is changed in place.
    """
    exported, graph = program.exported, program.graph
    masks = masks_of(program)
    if not masks:
        return program, ()
    examples = dict(program.examples)
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    for node, mask in zip(_drawing(program), masks, strict=True):
        with graph.inserting_after(last):
            last = graph.placeholder(mask.name)
        last.meta = {"val": node.meta["val"], "paritas_input": mask.name}
        node.replace_all_uses_with(last)
        graph.erase_node(node)
        spec = InputSpec(InputKind.USER_INPUT, TensorArgument(last.name), None)
        exported.graph_signature.input_specs.append(spec)
    with torch.random.fork_rng(devices=[]):
        try:
            examples |= {mask.name: mask.drawn(program.sizes) for mask in masks}
        except EngineError as error:
            raise CaptureError(str(error)) from error
    graph.eliminate_dead_code()
    exported.graph_module.recompile()
    names = {node.name for node in graph.nodes}
    specs = tuple(TensorSpec(mask.name, mask.dtype, mask.dims) for mask in masks)
    origins: Mapping[str, Origin] = {name: origin for name, origin in program.origins.items() if name in names}
    return dataclasses.replace(program, inputs=(*program.inputs, *specs), examples=examples, origins=origins), masks
