# SPDX-License-Identifier: Apache-2.0
"""From a program's graph to an `openvino.Model`: every node by the rule of its operator, under its own name."""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import openvino
import openvino.opset16 as ops
import torch
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.fx import Node
from torch.fx.node import map_arg

from paritas.capture.modules import is_size
from paritas.capture.normalise import ASSERTIONS, name_of
from paritas.capture.ranges import Interval, intervals, is_whole, kind_of, largest_input
from paritas.errors import LoweringError, ParitasError
from paritas.lower.openvino import sizes, watch
from paritas.lower.openvino.apart import kept_apart
from paritas.lower.openvino.complexes import of_complex
from paritas.lower.openvino.emit import HALF, TYPES, Emitter, constant, half_constant, is_tensor, out
from paritas.lower.openvino.empty import known_from_shapes
from paritas.lower.openvino.ports import TENSOR, result, type_of
from paritas.lower.openvino.precision import rounded
from paritas.lower.registry import Lowering, preflight
from paritas.program import Program, TensorSpec

#: No dimension that is compared with another, as positions in a mask are, is larger.
_LARGEST_SIZE = 2**23


class Built:
    """The model, and the tensors that it reads, which must outlive it.

    watched: where the operators are that `watch` watches, in order. largest: of the whole numbers at the door.
    unnoticed: where operators are whose results may leave 32 bits all the same. halves: the operators, by name, whose
    results a program of half precision has in that.
    """

    def __init__(
        self,
        model: openvino.Model,
        keep: list[Any],
        watched: Sequence[str] = (),
        largest: int = 2**31 - 1,
        unnoticed: Sequence[str] = (),
        halves: Collection[str] = (),
    ) -> None:
        self.model, self.keep = model, keep
        self.watched, self.largest, self.unnoticed = watched, largest, unnoticed
        self.halves = halves


def build(program: Program) -> Built:
    """The program as a model, its tensors under the names of their nodes.

    Inputs and outputs have the names of the program's. Raises `UnsupportedOps` for the operators that there is no rule
    for, before any is lowered, and `LoweringError` with the source line of a node that cannot be lowered as it is
    written. What a decomposition put there (see `decompose`) has no name.
    """
    return _Builder(program, preflight(program, "openvino")).build()


class _Sizes(dict[str, int]):
    """The largest sizes, where they are known."""

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key, _LARGEST_SIZE)


class _Builder:
    def __init__(self, program: Program, rules: Mapping[str, Lowering]) -> None:
        self.program, self.rules = program, rules
        self.keep: list[Any] = []
        self.values: dict[Node, Any] = {}
        self.shared: dict[Any, Any] = {"ranges": functools.cache(self._ranges)}
        self.wide: dict[Node, int] = {}  # constants, each with a number in it of more than 32 bits
        self.parameters: list[tuple[Node, openvino.op.Parameter, TensorSpec]] = []
        self.rounds = not _is_half(program)
        known = {s.name: (s.low or 0, s.high - 1) for s in program.inputs if s.high is not None}
        self.largest, always = largest_input(program.exported, known, program.limits, watched=watch.SUMS)
        held = {
            node.meta["paritas_input"]: known.get(node.meta["paritas_input"], (-self.largest - 1, self.largest))
            for node in program.exported.graph.nodes
            if "paritas_input" in node.meta and is_whole(node)
        }
        left: list[Node] = []
        intervals(program.exported, held, program.limits, watch.SUMS, left)
        #: Nodes that may leave 32 bits, until they are watched.
        self.beyond = dict.fromkeys([*always, *left])
        self.watched: list[tuple[str, openvino.Output]] = []

    def _ranges(self) -> dict[Node, Interval]:
        """What the nodes of whole numbers can hold, since no size is as large as what float32 counts to."""
        known = {s.name: (s.low or 0, s.high - 1) for s in self.program.inputs if s.high is not None}
        return intervals(self.program.exported, known, _Sizes(self.program.limits))

    def build(self) -> Built:
        exported = self.program.exported
        kinds = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
        specs = iter(self.program.inputs)
        returned: list[Node] = []
        for node in exported.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node, kinds[node.name], specs)
            elif node.op == "get_attr":
                found = operator.attrgetter(node.target)(exported.graph_module)
                self._measure(node, found)
                self.values[node] = constant(found, self.keep) if isinstance(found, torch.Tensor) else found
            elif node.op == "call_function":
                if name_of(node) not in ASSERTIONS:
                    self.values[node] = self._call(node)
                    self._name(node)
            elif node.op == "output":
                returned = [
                    value
                    for value, spec in zip(node.args[0], exported.graph_signature.output_specs, strict=True)
                    if spec.kind == OutputKind.USER_OUTPUT and isinstance(value, Node)
                ]
        for node, spec in zip(returned, self.program.outputs, strict=True):
            self._refuse_half_complex(node, spec)
        results = [
            result(_as_tensor(self.values[node]), spec)
            for node, spec in zip(returned, self.program.outputs, strict=True)
        ]
        for _, parameter, spec in self.parameters:
            parameter.output(0).get_tensor().set_names({spec.name})
            parameter.set_friendly_name(spec.name)
        if self.watched:
            results.append(watch.result([flag for _, flag in self.watched]))
        used = [p for node, p, _ in self.parameters if p.output(0).get_target_inputs()]
        model = openvino.Model(results, used, "paritas")
        kept_apart(model)
        return Built(
            model,
            self.keep,
            [where for where, _ in self.watched],
            self.largest,
            list(dict.fromkeys(self._where(node) for node in self.beyond)),
            set(self._halves()),
        )

    def _halves(self) -> Iterator[str]:
        for node, value in self.values.items():
            meta = node.meta.get("val")
            if isinstance(meta, torch.Tensor) and meta.dtype in HALF and isinstance(value, openvino.Output):
                yield value.get_node().get_friendly_name()

    def _placeholder(self, node: Node, spec: Any, specs: Any) -> Any:
        exported = self.program.exported
        if spec.kind != InputKind.USER_INPUT:
            held = exported.state_dict if spec.target in exported.state_dict else exported.constants
            value = held[spec.target]
            if spec.target in self.program.stored:
                return half_constant(self.program.stored[spec.target], self.keep)
            self._measure(node, value)
            return constant(value, self.keep) if isinstance(value, torch.Tensor) else value
        if isinstance(spec.arg, ConstantArgument):
            return spec.arg.value  # an argument that was fixed while capturing
        own: TensorSpec = next(specs)
        self._refuse_half_complex(next(iter(node.users), node), own)
        shape = [int(size) if str(size).isdigit() else -1 for size in own.dims]
        if "complex" in own.dtype:  # it crosses as pairs
            shape.append(2)
        parameter = ops.parameter(openvino.PartialShape(shape), type_of(own))
        self.parameters.append((node, parameter, own))
        return parameter.output(0)

    def _refuse_half_complex(self, node: Node, spec: TensorSpec) -> None:
        if spec.dtype == "complex32":
            raise LoweringError(
                f"openvino cannot lower {self._where(node)}: {spec.name} is complex in half precision, which NumPy has "
                "not. Take or return complex64."
            )

    def _watch(self, node: Node, emit: Emitter, rule: Lowering, found: Any, *given: Any) -> None:
        if kind_of(node) not in (*watch.SUMS, *watch.ELEMENTWISE):
            return
        if kind_of(node) == "_to_copy" and is_whole(node.all_input_nodes[0]):
            del self.beyond[node]  # what made the number is watched itself
            return
        try:
            flag = watch.beyond(emit, rule, found, *given)
        except Exception:  # noqa: BLE001 - a rule that knows no floats: a note says that nothing is noticed here
            return
        if flag is not None:
            self.watched.append((self._where(node), flag))
            del self.beyond[node]

    def _measure(self, node: Node, value: Any) -> None:
        if not isinstance(value, torch.Tensor) or value.dtype != torch.int64 or not value.numel():
            return
        for number in (int(value.min()), int(value.max())):
            if not -(2**31) <= number < 2**31:
                self.wide[node] = number

    def _call(self, node: Node) -> Any:
        name = name_of(node)
        arguments: Any = map_arg(node.args, self.values.__getitem__)
        if name == "getitem":
            return arguments[0][arguments[1]]
        known = known_from_shapes(node, self.keep)
        if known is not None:
            return known
        options: Any = map_arg(node.kwargs, self.values.__getitem__)
        for source in node.all_input_nodes:
            if (number := self.wide.get(source)) is not None:
                raise LoweringError(
                    f"openvino cannot lower {self._where(node)}: {number} in {source.name} takes more than 32 bits, "
                    "which OpenVINO cuts off."
                )
        metas = {
            id(self.values[source]): source.meta["val"]
            for source in node.all_input_nodes
            if isinstance(source.meta.get("val"), torch.Tensor)
        }
        emit = Emitter(node, self._where(node), self.keep, metas, self.rounds, self.shared)
        rule = self.rules.get(name)
        is_of_sizes = rule is None and is_size(node)
        if rule is not None and _uses_complex(node):
            rule = of_complex(name, rule)
            if rule is None:
                raise emit.refuse("there are complex numbers in it, and no rule for these")
        try:
            if is_of_sizes:
                return sizes.compute(emit, name, arguments)
            assert rule is not None, name  # `preflight` has seen to it
            found = rule(emit, *arguments, **options)
            if node in self.beyond:
                self._watch(node, emit, rule, found, arguments, options)
        except ParitasError:
            raise
        except Exception as error:
            said = " ".join(str(error).split())[:400]
            raise emit.refuse(f"OpenVINO says: {said or type(error).__name__}") from error
        if isinstance(found, (list, tuple)):
            return [None if value is None else out(value) for value in found]
        if not is_tensor(found):
            return found
        return rounded(out(found), node) if self.rounds else out(found)

    def _name(self, node: Node) -> None:
        """The name of its node on a tensor; and a look at whether the rule has kept its word."""
        value = self.values[node]
        meta = node.meta.get("val")
        if not isinstance(meta, torch.Tensor) or not isinstance(value, openvino.Output):
            return
        _check(value, meta, self._where(node))
        if not meta.is_complex() and "paritas_of" not in node.meta:
            value.get_tensor().add_names({TENSOR + node.name})
            if value.get_node().get_type_name() != "Parameter":
                value.get_node().set_friendly_name(node.name)

    def _where(self, node: Node) -> str:
        found = self.program.origin(node.meta.get("paritas_of", node.name))
        reader = node
        while not found.file and reader.users:  # arithmetic on sizes has no line: that of what it is for
            reader = next(iter(reader.users))
            found = self.program.origin(reader.meta.get("paritas_of", reader.name))
        return f"{name_of(node)} at {found}"


def _uses_complex(node: Node) -> bool:
    values = [node.meta.get("val"), *(source.meta.get("val") for source in node.all_input_nodes)]
    flat = [item for value in values for item in (value if isinstance(value, (list, tuple)) else [value])]
    return any(isinstance(value, torch.Tensor) and value.is_complex() for value in flat)


def _check(value: openvino.Output, meta: torch.Tensor, where: str) -> None:
    """A rule that returns another type or rank than torch is a bug of ours, and is never passed on."""
    if meta.is_complex():
        return
    kind, rank = value.get_element_type(), value.get_partial_shape().rank
    if kind != TYPES[meta.dtype] or rank.is_dynamic or rank.get_length() != meta.dim():
        raise LoweringError(
            f"openvino cannot lower {where}: its rule makes {kind.to_string()}{value.get_partial_shape()} of what is "
            f"{meta.dtype} of rank {meta.dim()}, a bug of Paritas."
        )
    for got, want in zip(value.get_partial_shape(), meta.shape, strict=True):
        if isinstance(want, int) and got.is_static and got.get_length() != want:
            raise LoweringError(
                f"openvino cannot lower {where}: its rule makes {value.get_partial_shape()} of {list(meta.shape)}, a "
                "bug of Paritas."
            )


def _as_tensor(value: Any) -> openvino.Output:
    if is_tensor(value):
        return out(value)
    kind = "boolean" if isinstance(value, bool) else "i64" if isinstance(value, int) else "f32"
    return out(ops.convert(ops.constant(value), kind))


def _is_half(program: Program) -> bool:
    """Whether the program itself is one of half precision: its casts to that are then what the engine computes in."""
    floats = [value.dtype for value in program.weights.values() if value.is_floating_point()]
    if floats:
        return max(set(floats), key=floats.count) in HALF
    return any(spec.dtype in ("float16", "bfloat16") for spec in program.inputs)
