# SPDX-License-Identifier: Apache-2.0
"""One execution of a captured graph, node by node, at the dtype of its capture or with every float at another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from paritas.capture.normalise import ASSERTIONS
from paritas.capture.streaming import reading
from paritas.dtypes import dtype_name
from paritas.errors import EngineError, first_line
from paritas.program import Program
from paritas.run.values import from_numpy, to_numpy

DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}

#: Operators that read or write a number's bits, so they mean something at the captured dtype only.
BITWISE = frozenset({"aten.view.dtype"})

#: Operators that return whatever was in memory. It is 0 here, as engines make it: what is read of it before it is
#: written would differ from one run to the next.
UNWRITTEN = frozenset({"aten.empty.memory_format", "aten.empty_like.default", "aten.new_empty.default"})

#: Tensor arguments that choose elements and take no part in the arithmetic.
SELECTORS = frozenset({"condition", "index", "indices", "mask", "dim"})

Seen = Callable[[str, np.ndarray], None]


def dtype_of(precision: str) -> torch.dtype:
    if precision not in DTYPES:
        raise EngineError(f"torch does not compute in {precision!r}. It does in: {', '.join(DTYPES)}.")
    return DTYPES[precision]


def captured_dtype(program: Program) -> torch.dtype:
    """The dtype of most of the program's floating-point weights, or of its first float input, or fp32."""
    sizes: dict[torch.dtype, int] = {}
    for tensor in program.exported.state_dict.values():
        if tensor.is_floating_point():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel()
    if sizes:
        return max(sizes, key=sizes.__getitem__)
    floats = [DTYPES[spec.dtype] for spec in program.inputs if spec.dtype in DTYPES]
    return floats[0] if floats else torch.float32


class Walk(Interpreter):
    """One execution of a program's graph, with every float at `dtype` unless that is None."""

    def __init__(
        self,
        program: Program,
        dtype: torch.dtype | None,
        see: Seen | None = None,
        names: frozenset[str] = frozenset(),
        graph: torch.fx.GraphModule | None = None,
    ):
        # Not ExportedProgram.module(): that copies the graph and hides the weights' placeholders.
        super().__init__(graph or program.exported.graph_module, garbage_collect_values=True)
        self.program, self.dtype, self.see, self.names = program, dtype, see, names
        self.node: Node | None = None
        self.extra_traceback = False

    def outputs(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        arguments = list(self._arguments(feed))
        try:
            with torch.no_grad(), reading():
                results = self.run(*arguments, enable_io_processing=False)
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"torch could not run {self._where()}: {first_line(error)}") from error
        return [self._leaving("an output", value) for value in self._user_outputs(results)]

    def _where(self) -> str:
        if self.node is None:
            return "the program"
        at = self.dtype or captured_dtype(self.program)
        dtype, origin = dtype_name(at), self.program.origin(self.node.name)
        return f"{self.node.name} = {self.node.target} in {dtype} ({origin})"

    # --- the border -------------------------------------------------------------------------

    def _arguments(self, feed: Mapping[str, np.ndarray]) -> Iterator[Any]:
        """One value per placeholder, as the signature says. Weights go in as they are and are cast where used."""
        exported = self.program.exported
        inputs = iter(self.program.inputs)
        missing = [spec.name for spec in self.program.inputs if spec.name not in feed]
        if missing:
            raise EngineError(f"The feed has no {', '.join(missing)}; it has {', '.join(feed) or 'nothing'}.")
        for spec in exported.graph_signature.input_specs:
            kind = spec.kind.name
            if kind in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR"):
                store = exported.state_dict if spec.target in exported.state_dict else exported.constants
                yield store[spec.target]
            elif kind == "USER_INPUT" and type(spec.arg).__name__ == "ConstantArgument":
                yield spec.arg.value
            elif kind == "USER_INPUT":
                tensor = next(inputs)
                value = feed[tensor.name]
                # What a call in float64 has remembered for the next one keeps its digits.
                exact = self.dtype is torch.float64 and value.dtype == np.float64
                yield from_numpy(value, "torch", "float64" if exact else tensor.dtype)
            else:
                raise EngineError(f"torch cannot feed the placeholder {spec.arg}: {kind.lower()} is not supported.")
        if left := [spec.name for spec in inputs]:
            raise EngineError(f"The program names more inputs than its graph takes: {', '.join(left)}.")

    def _user_outputs(self, results: Any) -> list[Any]:
        """Mutated buffers and constants leave the graph too, before and among the user's tensors."""
        specs = self.program.exported.graph_signature.output_specs
        user = [
            value
            for spec, value in zip(specs, results, strict=True)
            if spec.kind.name == "USER_OUTPUT" and type(spec.arg).__name__ != "ConstantArgument"
        ]
        tensors = [value for value in user if isinstance(value, torch.Tensor)]
        wanted = len(self.program.outputs)
        for found in (tensors, user):
            if len(found) == wanted:
                return found
        raise EngineError(f"The graph returned {len(user)} values, the program names {wanted} outputs.")

    def _leaving(self, name: str, value: Any) -> np.ndarray:
        """bfloat16 leaves as float32, a symbolic size as an int64 scalar."""
        return to_numpy(name, self._converted(value))

    # --- the arithmetic ---------------------------------------------------------------------

    def run_node(self, n: Node) -> Any:
        outer, self.node = self.node, n
        value = super().run_node(n)
        if str(n.target) in UNWRITTEN:
            value = torch.zeros_like(value)
        if n.name in self.names and isinstance(value, torch.Tensor) and self.see is not None:
            self.see(n.name, self._leaving(n.name, value))
        self.node = outer
        return value

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(target, torch._ops.HigherOrderOperator):
            return self._higher_order(target, args, kwargs)
        if self.dtype is None or not isinstance(target, torch._ops.OpOverload):
            return super().call_function(target, args, kwargs)
        name = str(target)
        if name in ASSERTIONS:
            return None
        if target._schema.is_mutable:
            raise EngineError(f"{self._where()} writes into its argument; a captured graph is functional.")
        if name in BITWISE:
            return target(args[0].to(self._meta(self.node.args[0]).dtype), *args[1:], **kwargs)  # type: ignore[union-attr]
        args, kwargs = pytree.tree_map(self._converted, (tuple(args), dict(kwargs)))
        if name == "aten.where.Scalar":  # its result has the default dtype
            return torch.where(args[0], *(torch.tensor(v, dtype=self._float(v)) for v in args[1:3]))
        self._set_default_dtype(target, args, kwargs)
        return self._promoted(target, args, kwargs, target(*args, **kwargs))

    def _converted(self, value: Any) -> Any:
        """Floating-point tensors and dtypes become the session's, complex ones follow; the rest is untouched."""
        if self.dtype is None:
            return value
        kind = value.dtype if isinstance(value, torch.Tensor) else value
        if not isinstance(kind, torch.dtype) or not (kind.is_floating_point or kind.is_complex):
            return value
        goal = self.dtype if kind.is_floating_point else _COMPLEX[self.dtype]
        return value.to(goal) if isinstance(value, torch.Tensor) else goal

    def _float(self, scalar: Any) -> torch.dtype | None:
        return self.dtype if isinstance(scalar, float) else None

    def _meta(self, node: Any) -> Any:
        return node.meta["val"]

    def _set_default_dtype(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """`ones([2])` without a dtype is fp32, by the process's default: say the dtype instead of changing that."""
        schema = target._schema.arguments
        at = next((i for i, a in enumerate(schema) if a.name == "dtype"), None)
        if at is None or (len(args) > at and args[at] is not None) or kwargs.get("dtype") is not None:
            return
        value = self.node.meta.get("val") if self.node is not None else None
        if (
            isinstance(value, torch.Tensor)
            and value.dtype.is_floating_point
            and not _tensors(args, kwargs)
            and len(args) <= at
        ):
            kwargs["dtype"] = self.dtype

    def _promoted(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
        """Integers that become floats (`3 / 2`, `ints * 0.1`, `sqrt(ints)`) do so at the default dtype, fp32.

        Then the operator is computed again, from the integers at the session's precision.
        """
        tensors = [t for t in pytree.tree_leaves(result) if isinstance(t, torch.Tensor)]
        if all(t.dtype == self.dtype or not t.is_floating_point() for t in tensors):
            return result
        if any(t.is_floating_point() for t in _tensors(args, kwargs)):
            return result  # a statistic that the kernel keeps at fp32; it is cast where it is used

        def wide(name: str, value: Any) -> Any:
            if isinstance(value, torch.Tensor) and name not in SELECTORS and not value.is_complex():
                return value.to(self.dtype)
            return value

        names = [a.name for a in target._schema.arguments]
        args = tuple(wide(name, value) for name, value in zip(names, args, strict=False))  # defaults are left out
        return target(*args, **{name: wide(name, value) for name, value in kwargs.items()})

    def _higher_order(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Graphs inside the graph run in a walk of their own: torch would compile them, at their own dtypes."""
        match target.name(), args:
            case "wrap_with_set_grad_enabled", (enabled, graph, *operands):
                with torch.set_grad_enabled(bool(enabled) and torch.is_grad_enabled()):
                    return self._nested(graph, operands)
            case "wrap_with_autocast", (device, dtype, enabled, cache, graph, *operands):
                native = self.dtype is None and enabled
                with torch.autocast(device, dtype, True, cache) if native else contextlib.nullcontext():
                    return self._nested(graph, operands)
            case "cond", (chosen, yes, no, operands):
                return self._nested(yes if bool(chosen) else no, operands)
            case "while_loop", (condition, body, carried, others):
                values = tuple(carried)
                while bool(self._nested(condition, (*values, *others))):
                    values = tuple(self._nested(body, (*values, *others)))
                return values
        if self.dtype is None:
            return super().call_function(target, args, kwargs)
        raise EngineError(f"{self._where()}: no rule for this higher-order operator at another precision.")

    def _nested(self, graph: torch.fx.GraphModule, operands: Any) -> Any:
        return Walk(self.program, self.dtype, graph=graph).run(*operands, enable_io_processing=False)


class LocalWalk(Walk):
    """A walk in which some nodes, once shown, have the values that they are given."""

    def __init__(
        self,
        program: Program,
        dtype: torch.dtype | None,
        see: Seen,
        given: Mapping[str, np.ndarray],
        names: frozenset[str] = frozenset(),
    ):
        super().__init__(program, dtype, see, names.union(given))
        self.given = given

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.name not in self.given or not isinstance(value, torch.Tensor):
            return value
        return torch.from_numpy(np.array(self.given[n.name])).to(value.dtype)


_COMPLEX = {
    torch.float64: torch.complex128,
    torch.float32: torch.complex64,
    torch.float16: torch.complex64,
    torch.bfloat16: torch.complex64,
}


def _tensors(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    return [t for t in pytree.tree_leaves((args, dict(kwargs))) if isinstance(t, torch.Tensor)]
