# SPDX-License-Identifier: Apache-2.0
"""PyTorch, the reference: a captured `Program` at any precision, or the original's class from a port on disk.

In float64 a program is the truth that both PyTorch's fp32 and an engine's numbers are measured against, so
nothing in it may stay at fp32: parameters, constants, inputs, every dtype argument, every default dtype.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from paritas import contents, leftovers
from paritas.errors import EngineError, ParitasError, PortError, first_line
from paritas.nesting import invoke, nest
from paritas.program import Artifact, Program
from paritas.run.engine import Gradients
from paritas.run.values import describe_output, from_numpy, to_numpy

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

#: Checks of dtypes and sizes that were true at the captured precision.
ASSERTIONS = frozenset({"aten._assert_tensor_metadata.default", "aten._assert_scalar.default"})

#: Operators that read or write a number's bits, so they mean something at the captured dtype only.
BITWISE = frozenset({"aten.view.dtype"})

#: Tensor arguments that choose elements and take no part in the arithmetic.
SELECTORS = frozenset({"condition", "index", "indices", "mask", "dim"})

Seen = Callable[[str, np.ndarray], None]


class Torch:
    """The engine "torch": the original itself, behind the contract that all engines sign."""

    name = "torch"
    package = "torch"
    modes = ("",)
    differentiates = True

    def precisions(self) -> Mapping[str, str]:
        return dict.fromkeys(DTYPES, "")

    def load(
        self, artifact: Artifact, *, mode: str = "", precision: str = "", device: str = ""
    ) -> EagerSession:
        """The original's class with the port's weights, in eager mode.

        The directory holds config.json and model.safetensors; nothing else of it is read, and no code in it
        is run. Raises `PortError` if the manifest's class is not one of transformers' or the weights do not
        fit it, `EngineError` for an unknown mode, precision or device.
        """
        if mode not in self.modes:
            raise EngineError(f"The engine torch has no modes, so not {mode!r} either.")
        precision = precision or artifact.manifest.dtype
        dtype = _dtype(precision)
        model = _original(artifact)
        try:
            model = model.to(device=device or "cpu", dtype=dtype).eval()
        except (RuntimeError, AssertionError) as error:
            raise EngineError(f"torch cannot use the device {device!r}: {first_line(error)}") from None
        return EagerSession(model, artifact, precision)


def _dtype(precision: str) -> torch.dtype:
    if precision not in DTYPES:
        raise EngineError(f"torch does not compute in {precision!r}. It does in: {', '.join(DTYPES)}.")
    return DTYPES[precision]


def _original(artifact: Artifact) -> torch.nn.Module:
    name = artifact.manifest.source.model_class
    module, _, cls_name = name.rpartition(".")
    # The manifest is data from a directory: it may choose among transformers' classes, and nothing else.
    if not module.startswith("transformers."):
        raise PortError(
            f"{artifact.directory}: its original is {name or 'unknown'}, which is no class of transformers, so torch "
            "cannot build it from the directory alone. Pass the original: port.verify() needs the module in memory."
        )
    from transformers import PreTrainedModel

    try:
        cls = getattr(importlib.import_module(module), cls_name)
    except (ImportError, AttributeError):
        raise PortError(f"{artifact.directory}: the installed transformers has no {name}.") from None
    if not (isinstance(cls, type) and issubclass(cls, PreTrainedModel)):
        raise PortError(f"{artifact.directory}: {name} is no model.")
    for file in ("config.json", "model.safetensors"):
        if not contents.has(artifact, file):
            raise PortError(
                f"{artifact.directory}: {file} is missing, which torch needs to build {cls_name}."
            )
    try:
        # Alone in a directory, for transformers reads whatever else it finds beside them: adapters, indices of shards.
        with leftovers.temporary("checked") as place:
            for file in ("config.json", "model.safetensors"):
                (place / file).write_bytes(contents.take(artifact, file))
            loaded: Any = cls.from_pretrained(
                place,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
            )
    except ParitasError:
        raise
    except Exception as error:
        raise PortError(f"{artifact.directory}: {cls_name} cannot be loaded: {first_line(error)}") from error
    model, loading = loaded
    bad = {kind: sorted(map(str, loading.get(kind) or ())) for kind in ("missing_keys", "mismatched_keys")}
    if any(bad.values()):
        rows = "; ".join(
            f"{kind.replace('_', ' ')}: {', '.join(keys[:5])}" for kind, keys in bad.items() if keys
        )
        raise PortError(f"{artifact.directory}: model.safetensors does not fit {cls_name}: {rows}")
    return model


class EagerSession:
    """An original in eager mode. Explicit casts in its code stay: in "float64" it is not yet the truth."""

    def __init__(self, model: torch.nn.Module, artifact: Artifact, precision: str):
        self.precision = precision
        self._model: torch.nn.Module | None = model
        self._manifest = artifact.manifest

    def run(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Flat outputs in the manifest's order. Raises `EngineError` with torch's reason."""
        if self._model is None:
            raise EngineError("This session is closed.")
        inputs = {
            # A copy, since some models write into their inputs.
            spec.name: self._placed(from_numpy(np.array(feed[spec.name]), "torch", spec.dtype))
            for spec in self._manifest.inputs
        }
        try:
            with torch.no_grad():
                arguments = {**nest(inputs, self._manifest.nesting), **self._manifest.constants}
                result = invoke(self._model, arguments)
        except Exception as error:
            raise EngineError(
                f"torch could not run {type(self._model).__name__}: {first_line(error)}"
            ) from error
        tensors, _ = describe_output(result)
        flat = [to_numpy(f"output {i}", tensor) for i, tensor in enumerate(tensors)]
        if len(flat) != len(self._manifest.outputs):
            raise EngineError(
                f"{type(self._model).__name__} returned {len(flat)} tensors, not {len(self._manifest.outputs)}."
            )
        return flat

    def gradients(self, feed: Mapping[str, np.ndarray], cotangents: Sequence[np.ndarray | None]) -> Gradients:
        """See `run.engine.Differentiates`. Raises `EngineError` with torch's reason."""
        from paritas.run.torch_gradients import eager_gradients

        if self._model is None:
            raise EngineError("This session is closed.")
        manifest = self._manifest
        return eager_gradients(self._model, feed, cotangents, manifest.nesting, manifest.constants)

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Where the weights are, and if it is a float, in their dtype."""
        assert self._model is not None
        weight = next(self._model.parameters())
        return tensor.to(weight.device, weight.dtype if tensor.is_floating_point() else None)

    def close(self) -> None:
        self._model = None


class TorchSession:
    """A captured program, run node by node.

    precision: at the dtype of the captured weights the graph runs as it is; at any other, every float in it
    becomes that dtype, so a graph captured at fp32 has no fp32 island left in bfloat16, which the eager
    model may have (take the eager model for PyTorch's own error there). Process-wide settings, the default
    dtype among them, are left alone. bfloat16 leaves as float32, which holds it exactly.
    """

    observed_with = "the graph's own nodes, nothing changed"

    def __init__(self, program: Program, precision: str = "float32"):
        self.precision = precision
        self._dtype = _dtype(precision)
        self._program: Program | None = program
        self._cast = captured_dtype(program) != self._dtype

    def run(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Flat outputs in the program's order; floats at the session's precision."""
        return self.walk(feed)

    def observe(
        self, feed: Mapping[str, np.ndarray], names: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """{node name: value} for `names`, by default all that leave some module. Nodes of tuples are left out."""
        found: dict[str, np.ndarray] = {}
        self.walk(feed, found.__setitem__, names)
        return found

    def walk(
        self, feed: Mapping[str, np.ndarray], see: Seen | None = None, names: Collection[str] | None = None
    ) -> list[np.ndarray]:
        """Run, and show `see(node name, value)` each named node when it is computed; nothing is kept for it.

        An intermediate value lives until its last use. Raises `EngineError` naming the node and its source line.
        """
        program = self._opened()
        if names is None:
            names = {name for call in program.modules for name in call.outputs} if see else ()
        walk = Walk(program, self._dtype if self._cast else None, see, frozenset(names))
        return walk.outputs(feed)

    def locally(self, feed: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], see: Seen) -> None:
        """Run, and show `see(node name, value)` what each node of `given` makes of the *given* values before it.

        Whatever uses such a node goes on with the value in `given`, cast to the session's dtype: an error in one
        node reaches no other.
        """
        _Local(self._opened(), self._dtype if self._cast else None, see, given).outputs(feed)

    def gradients(self, feed: Mapping[str, np.ndarray], cotangents: Sequence[np.ndarray | None]) -> Gradients:
        """See `run.engine.Differentiates`: of the parameters that require gradients and of the floating inputs."""
        from paritas.run.torch_gradients import graph_gradients

        return graph_gradients(self._opened(), self._dtype, feed, cotangents)

    def vjps(
        self,
        feed: Mapping[str, np.ndarray],
        given: Mapping[str, np.ndarray],
        cotangents: Mapping[str, np.ndarray],
    ) -> Gradients:
        """See `run.engine.Differentiates`."""
        from paritas.run.torch_gradients import node_vjps

        return node_vjps(self._opened(), self._dtype, feed, given, cotangents)

    def _opened(self) -> Program:
        if self._program is None:
            raise EngineError("This session is closed.")
        return self._program

    def close(self) -> None:
        self._program = None


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
            with torch.no_grad():
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
        dtype, origin = str(at).removeprefix("torch."), self.program.origin(self.node.name)
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
                yield from_numpy(feed[tensor.name], "torch", tensor.dtype)
            else:
                raise EngineError(
                    f"torch cannot feed the placeholder {spec.arg}: {kind.lower()} is not supported."
                )
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
        args = tuple(
            wide(name, value) for name, value in zip(names, args, strict=False)
        )  # defaults are left out
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


class _Local(Walk):
    """A walk in which some nodes, once shown, have the values that they are given."""

    def __init__(
        self, program: Program, dtype: torch.dtype | None, see: Seen, given: Mapping[str, np.ndarray]
    ):
        super().__init__(program, dtype, see, frozenset(given))
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
