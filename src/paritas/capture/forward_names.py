# SPDX-License-Identifier: Apache-2.0
"""What the original's forwards call their arguments, and in which order they return their results.

The graph says that a tensor enters a module, not under which name. So the original runs once eagerly
with every module's arguments and results recorded, the graph runs once on the same inputs, and a tensor
at the border of a region is the argument or result with the same values. Only names depend on it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from paritas.arguments import invoke
from paritas.capture import autocast
from paritas.capture.forward import Call, parameter_names
from paritas.capture.modules import Region
from paritas.capture.state import seeded
from paritas.pytree import describe_output, leaf_names

#: Of an element and of the mean: what another way through a model's code is off by, and no rounding.
FAR = 0.01

#: Elements of a tensor that are kept to know it by; it is kept whole where it has no more.
MOST = 1 << 14

#: Of the mean: how far two computations of one tensor may be from each other for it to be taken for the same.
NEAR = 1e-4


@dataclasses.dataclass(frozen=True)
class ForwardNames:
    """What the original's forwards say of the tensors at their borders.

    arguments: region key -> {node name: argument name}, in the order of forward's signature.
    results: region key -> {node name: its position among the tensors that forward returned}.
    differs: where the graph answers otherwise than the original, which ran for this anyway; "" where it does not.
    """

    arguments: Mapping[str, Mapping[str, str]]
    results: Mapping[str, Mapping[str, int]]
    differs: str = ""


def forward_names(
    model: torch.nn.Module, exported: torch.export.ExportedProgram, tree: Region, call: Call
) -> ForwardNames:
    """Name what enters and leaves every region of `tree`. A tensor that is not found is left out."""
    tensors = {name: with_padding(name, tensor) for name, tensor in call.tensors.items()}
    calls, want = _recorded_calls(model, call.arguments(tensors))
    wanted = {node for region in tree.regions() for node in (*region.inputs, *region.outputs)}
    values, got = _node_values(exported, tensors, wanted)
    arguments, results = {}, {}
    for region in tree.regions():
        recorded = calls.get(region.path, [])
        if region.parent is None or region.call >= len(recorded):
            continue
        inner = recorded[region.call]
        arguments[region.key] = _match(region.inputs, values, inner.arguments)
        results[region.key] = _match(region.outputs, values, dict(enumerate(inner.results)))
    return ForwardNames(arguments, results, _difference(got, want))


def _difference(got: Sequence[Any], want: Any) -> str:
    """How a graph's outputs differ from the original's by more than any rounding explains; "" if they do not."""
    flat, structure = describe_output(want)
    if len(got) != len(flat):
        return ""  # numbers among the outputs, which the graph does not return
    for name, one, other in zip(leaf_names(structure), got, flat, strict=True):
        if not isinstance(one, torch.Tensor):
            continue
        if one.shape != other.shape or one.dtype != other.dtype:
            return f"{name} is {_kind(one)} in the graph, {_kind(other)} in PyTorch"
        if not other.numel():
            continue
        wide = torch.complex128 if one.is_complex() else torch.float64
        finite = one.isfinite() & other.isfinite()
        off = (one.to(wide) - other.to(wide)).abs()[finite]
        size = other.to(wide).abs()[finite]
        half = other.dtype in (torch.float16, torch.bfloat16)
        if (off > (0.3 if half else FAR) * (size + (size.mean() if size.numel() else 0)) + 1e-6).any():
            return f"{name} is off by up to {off.max():.3g}"
    return ""


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


class _Seen(NamedTuple):
    """A tensor that was seen on the way: of a large one some numbers, since all of them together fill the memory."""

    shape: torch.Size
    dtype: torch.dtype
    numbers: torch.Tensor


def _seen(tensor: torch.Tensor) -> _Seen:
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)  # of a transform, as vmap: it has no memory
    numbers = tensor
    if type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided and not wrapped:
        numbers = tensor.detach()
        if numbers.numel() > MOST:
            step = numbers.numel() // MOST | 1  # odd: not one column only of a matrix whose rows are a power of 2
            numbers = numbers.reshape(-1)[::step].clone()
        elif numbers.nbytes < numbers.untyped_storage().nbytes():
            numbers = numbers.clone()  # a piece of a large one would keep it all
    return _Seen(tensor.shape, tensor.dtype, numbers)


def _match(nodes: Sequence[Node], values: Mapping[Node, Any], candidates: Mapping[Any, _Seen]) -> dict[str, Any]:
    """node name -> the key of the first candidate with its values, in the order of the candidates.

    The graph and the model may round otherwise: what is equal nowhere is what is next to it.
    """
    free = dict(candidates)
    found: dict[str, Any] = {}
    for same in (_equal, _near):
        for node in [node for node in nodes if node.name not in found]:
            key = next((key for key, tensor in free.items() if same(values.get(node), tensor)), None)
            if key is not None:
                found[node.name] = key
                del free[key]
    order = list(candidates)
    return dict(sorted(found.items(), key=lambda item: order.index(item[1])))


def with_padding(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Masks get a padded position: with nothing masked, transformers' modules are handed None instead of a mask."""
    if not name.endswith("attention_mask") or tensor.dim() != 2 or tensor.shape[1] < 3:
        return tensor
    tensor = tensor.clone()
    tensor[-1, -1] = 0
    return tensor


@dataclasses.dataclass
class _Call:
    arguments: dict[str, _Seen]
    results: list[_Seen] = dataclasses.field(default_factory=list)


def _recorded_calls(model: torch.nn.Module, given: Mapping[str, Any]) -> tuple[dict[str, list[_Call]], Any]:
    calls: dict[str, list[_Call]] = {}
    handles = []

    def watch(path: str, module: torch.nn.Module) -> None:
        signature = inspect.signature(module.forward)
        running: list[_Call] = []

        def enter(_: Any, args: tuple, kwargs: dict) -> None:
            try:
                arguments = signature.bind(*args, **kwargs).arguments
            except TypeError:
                arguments = {}
            running.append(_Call({name: _seen(one) for name, one in _tensors(arguments, signature)}))
            calls.setdefault(path, []).append(running[-1])

        def leave(_: Any, args: tuple, kwargs: dict, out: Any) -> None:
            running.pop().results = [_seen(leaf) for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]

        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(leave, with_kwargs=True))

    for path, module in model.named_modules():
        watch(path, module)
    try:
        with torch.no_grad(), seeded():
            returned = invoke(model, given)
    finally:
        for handle in handles:
            handle.remove()
    return calls, returned


def _tensors(arguments: Mapping[str, Any], signature: inspect.Signature) -> list[tuple[str, torch.Tensor]]:
    found: list[tuple[str, torch.Tensor]] = []
    for name, value in arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            found += _tensors_of(value.items())
        elif isinstance(value, (tuple, list)):
            found += _tensors_of((f"{name}_{i}", v) for i, v in enumerate(value))
        else:
            found += _tensors_of([(name, value)])
    return found


def _tensors_of(items: Any) -> list[tuple[str, torch.Tensor]]:
    return [(str(name), value) for name, value in items if isinstance(value, torch.Tensor)]


class _Recorder(torch.fx.Interpreter):
    def __init__(self, module: torch.fx.GraphModule, wanted: set[Node]) -> None:
        super().__init__(module)
        self.wanted, self.values = wanted, dict[Node, Any]()

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n in self.wanted:
            self.values[n] = _seen(value) if isinstance(value, torch.Tensor) else value
        return value


def _node_values(
    exported: torch.export.ExportedProgram, tensors: Mapping[str, torch.Tensor], wanted: set[Node]
) -> tuple[dict[Node, Any], list[Any]]:
    recorder = _Recorder(exported.graph_module, wanted)
    with seeded():
        returned = run_graph(exported, tensors, recorder)
    return recorder.values, returned


def run_graph(
    exported: torch.export.ExportedProgram,
    tensors: Mapping[str, torch.Tensor],
    interpreter: torch.fx.Interpreter | None = None,
) -> list[Any]:
    """What the graph in normal form returns for these inputs, flat. interpreter: of that graph, to watch it."""
    runs = interpreter or torch.fx.Interpreter(exported.graph_module)
    with torch.no_grad(), autocast.around(exported):
        return list(runs.run(*_placed(exported, tensors)))


def _placed(exported: torch.export.ExportedProgram, tensors: Mapping[str, torch.Tensor]) -> list[Any]:
    """A value for each placeholder: these inputs, and the model's weights."""
    own = {plain: name for name, plain in parameter_names(tensors).items()}
    return [
        tensors[own[node.meta["paritas_input"]]] if "paritas_input" in node.meta else weight(exported, node)
        for node in exported.graph.nodes
        if node.op == "placeholder"
    ]


def weight(exported: torch.export.ExportedProgram, node: Node) -> Any:
    """The parameter, buffer or constant that a placeholder stands for; None for an argument that is no tensor."""
    signature = exported.graph_signature
    name = signature.inputs_to_parameters.get(node.name) or signature.inputs_to_buffers.get(node.name)
    if name is not None:
        return exported.state_dict[name] if name in exported.state_dict else exported.constants[name]
    name = signature.inputs_to_lifted_tensor_constants.get(node.name)
    return None if name is None else exported.constants[name]


def _near(a: object, b: _Seen) -> bool:
    if not (isinstance(a, _Seen) and a[:2] == b[:2] and b.dtype.is_floating_point and b.numbers.numel()):
        return False
    far = NEAR * float(b.numbers.abs().nanmean().nan_to_num())
    return torch.allclose(a.numbers, b.numbers, rtol=0.0, atol=far, equal_nan=True)


def _equal(a: object, b: _Seen) -> bool:
    if not (isinstance(a, _Seen) and a[:2] == b[:2]):
        return False
    return a.numbers is b.numbers or torch.equal(a.numbers, b.numbers)
