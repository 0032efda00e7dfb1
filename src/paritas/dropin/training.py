# SPDX-License-Identifier: Apache-2.0
"""A model that is trained by torch's own loops while an engine computes it, forward and backward.

Its parameters stay torch's, and the engine reads them where they are: optimizers, schedulers, clipping, accumulation,
adapters and checkpoints are torch's own code. A call is a node of torch's autograd, whose backward asks the engine for
its gradients. Dropout is drawn by torch, in the order of the model's code, and is the original's to the bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from paritas import pipeline
from paritas.arguments import flatten
from paritas.capture import autocast, capture, recomputed
from paritas.capture.training import Mask, with_masks_as_inputs
from paritas.dropin.calls import takes
from paritas.dropin.classes import Ported, ported_class
from paritas.dropin.describe import describe
from paritas.dropin.dispatch import install
from paritas.dropin.fitting import sizes_of
from paritas.dropin.library import register_loaded
from paritas.dropin.network import Condition, Network
from paritas.dropin.watch import TRAINING, Watch, entries, same
from paritas.errors import EngineError, InputError, first_line
from paritas.making import build_options
from paritas.options import BuildOptions
from paritas.program import Program, Source
from paritas.pytree import build_output
from paritas.run.engine import about
from paritas.run.engine import engine as find_engine
from paritas.run.session import Trains
from paritas.run.values import dynamic_sizes, from_numpy

#: Numbers that differ from step to step, which a graph would take for constants: tensors in it.
COUNTED = ("num_items_in_batch",)


#: Where nobody names an engine.
_UNNAMED = "mindspore"

#: What `on_engine` was given, the innermost last.
_wished: list[tuple[str, str]] = []
_seen: list[weakref.ref[Any]] = []


@contextlib.contextmanager
def on_engine(name: str, mode: str = "") -> Iterator[None]:
    """What is made trainable without a word of an engine is trained on this one while it is open."""
    _wished.append((name, mode))
    try:
        yield
    finally:
        _wished.pop()


def wished() -> tuple[str, str]:
    """The engine and the mode of what is trained, where none is named."""
    return _wished[-1] if _wished else (_UNNAMED, "")


def trained() -> list[Any]:
    """The models that were made trainable while `on_engine` was open and are still there, in order."""
    return [model for seen in _seen if (model := seen()) is not None]


def trainable(model: Any, engine: str | None = None, *, mode: str = "", target: str = "cpu") -> Any:
    """Let an engine compute a model in training: forward and backward, in torch's own loops.

    The same object, whose class is a subclass of its own of the same name: torch's optimizers, peft, transformers'
    Trainer, accelerate and whatever else trains torch modules go on as before.

    Args:
        model: a `torch.nn.Module` of float32, in memory.
        engine: one that has gradients: "mindspore", which it is by default; "torch" leaves the model as it is.
        mode: as in `paritas.port`.
        target: as in `paritas.port`.

    Returns:
        The model.

    Raises:
        UnknownEngine, EngineMissing: it cannot run so here.
        InputError: the engine has no gradients, or the model is not float32.
    """
    if engine is None:
        engine, asked = wished()
        mode = mode or asked
    if _wished:
        _seen.append(weakref.ref(model))
    if about(engine).is_original:
        return model
    if isinstance(at := vars(model).get("_paritas"), TrainedNetwork) and at.build.engine == about(engine).name:
        return model
    build, _ = build_options(engine, mode=mode, target=target)
    if not about(engine).trains:
        raise InputError(f'{engine} computes no gradients: nothing can be trained on it. engine="mindspore" does.')
    odd = {
        str(p.dtype).removeprefix("torch.")
        for p in model.parameters()
        if p.is_floating_point() and p.dtype != torch.float32
    }
    if odd:
        raise InputError(
            f"This {type(model).__name__} has weights of {', '.join(sorted(odd))}. {about(engine).label} trains on the "
            "CPU in float32, whose memory it shares with torch: model.float()"
        )
    register_loaded()
    if not isinstance(model, Ported):
        model.__class__ = ported_class(type(model), Ported)
    install(model, TrainedNetwork(model, build))
    return model


def with_float16(accelerator: Any) -> None:
    """Let an accelerate.Accelerator that was asked for fp16 compute and scale so on a CPU.

    accelerate (1.15) leaves it out there and trains in float32, without a word; torch has both on the CPU.
    """
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu" and accelerator.scaler is None:
        handler = accelerator.scaler_handler
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu", **(handler.to_kwargs() if handler else {}))


class _Structure(Watch):
    """A model but for the values of its weights, which the engine reads where they are."""

    def look(self) -> None:
        super().look()
        self._flags = self._requires()
        self.only_original = {path: why for path, why in self.only_original.items() if why != TRAINING}

    def changed(self) -> bool:
        return (
            self._flags != self._requires()
            or any(self._empty)
            or not same(self._values, self._dicts, entries)
            or not same(self._classes, self._views, entries)
            or not same(self._items, self._lists, iter)
        )

    def _requires(self) -> list[bool]:
        return [tensor.requires_grad for tensor in self.tensors.values()]

    @property
    def flags(self) -> tuple[bool, ...]:
        return tuple(self._flags)


@dataclasses.dataclass
class Step:
    """A port that is trained: what it draws, and which weights reach which of its outputs.

    weights: names in the port -> the model's own tensors; reached: for each output, those on which it depends, and the
    inputs. recomputed: modules that are computed again in the backward.
    """

    port: pipeline.Port
    masks: tuple[Mask, ...]
    weights: dict[str, torch.Tensor]
    reached: list[frozenset[str]]
    recomputed: frozenset[str] = frozenset()
    addresses: list[int] = dataclasses.field(default_factory=list)

    def share(self) -> None:
        """Let the engine read the weights where they are now."""
        addresses = [tensor.data_ptr() for tensor in self.weights.values()]
        if addresses != self.addresses:
            if self.addresses:  # a graph that MindSpore has compiled keeps to the memory that it knows (2.10)
                manifest = self.port.manifest
                self.port.session.close()
                opened: Any = find_engine(manifest.engine).load(self.port.artifact, mode=self.port.mode)
                opened.recompute(self.recomputed)
                self.port.session = opened
            session: Any = self.port.session
            session.share({name: tensor.detach().numpy() for name, tensor in self.weights.items()})
            self.addresses = addresses


class TrainedNetwork(Network):
    """Runs the modules of a model that is trained."""

    def __init__(self, model: torch.nn.Module, build: BuildOptions) -> None:
        super().__init__(model, build)
        self._steps: dict[int, Step] = {}

    def __call__(
        self, path: str, module: torch.nn.Module, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        with self._lock:
            if halves := autocast.asked():
                self._say(
                    f"{type(module).__name__}: what torch.autocast computes in {halves} is computed in float32 and "
                    f"rounded: {self.engine.label} has no kernels of it on the CPU that are faster"
                )
            self._notice()
            if why := self._looked_into(path, module, args, kwargs):
                raise InputError(
                    f"{type(module).__name__} cannot be trained on {self.engine.label} as it is: "
                    f"{why.removesuffix(': PyTorch computes').removeprefix('PyTorch computes, since ')}."
                )
            call = self._taken_apart(module, args, kwargs)
            with torch.inference_mode(False), _same_draws():
                port, arguments = self._port_of(path, module, call)
            step = self._steps[id(port)]
            step.share()
            return self._stepped(step, module, arguments)

    def _taken_apart(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = super()._taken_apart(module, args, kwargs)
        caches = takes(type(module), "use_cache") and getattr(getattr(module, "config", None), "use_cache", False)
        if caches and "use_cache" not in call.fixed:
            self._say(
                f"{type(module).__name__}: no cache of keys and values is returned, which training has no use for"
            )
            call.fixed["use_cache"] = False
        for name, value in list(call.fixed.items()):
            if type(value) in (int, float) and name in COUNTED:
                call.tensors[name] = torch.tensor(call.fixed.pop(name))
        return call

    # --- one call ---

    def _stepped(self, step: Step, module: torch.nn.Module, arguments: Mapping[str, Any]) -> Any:
        port = step.port
        sizes = sizes_of(port, arguments)
        drawn = {mask.name: mask.drawn(sizes) for mask in step.masks}
        given = {name: value for name, value in arguments.items() if value is not None}
        with torch.no_grad():
            feed = port.feed({**given, **drawn})
        by = {}
        if torch.is_grad_enabled():
            flat = flatten(arguments, port.manifest.nesting)
            by = {n: t for n, t in flat.items() if isinstance(t, torch.Tensor) and t.requires_grad}
        weights = {name: tensor for name, tensor in step.weights.items() if tensor.requires_grad}
        session: Any = port.session
        if not torch.is_grad_enabled() or not (weights or by):
            tensors = _tensors(port, session.infer(feed, train=module.training))
        else:
            tensors = list(
                _Step.apply(step, feed, module.training, list(weights), list(by), *weights.values(), *by.values())
            )
        self._count_batches(module)
        sized = dynamic_sizes(port.inputs, feed)
        return build_output(port.manifest.structure, tensors, "torch", sized)

    def _count_batches(self, module: torch.nn.Module) -> None:
        """Batch norms count what they have seen, on which no output depends."""
        for inner in module.modules():
            counted = getattr(inner, "num_batches_tracked", None)
            if inner.training and isinstance(counted, torch.Tensor):
                with torch.no_grad():
                    counted.add_(1)

    # --- what has changed ---

    def _notice(self) -> None:
        if self._watch is None:
            self._watch = _Structure(self.model)
        elif not self._watch.changed():
            return
        else:
            self._watch.look()
        install(self.model, self)
        self._watch.look()
        names = {id(tensor): name for name, tensor in self._watch.tensors.items()}
        key = describe(self.model, names, lambda value: f"{type(value).__qualname__} {id(value)}")
        assert isinstance(self._watch, _Structure)
        key = f"{key} {self._watch.flags} {[id(tensor) for tensor in self._watch.tensors.values()]}"
        if key not in self._conditions:
            self._conditions[key] = Condition(key, complete=False)
        self._turn_to(key)

    def _closed(self, condition: Condition) -> None:
        for port in condition.all_ports():
            self._steps.pop(id(port), None)
        super()._closed(condition)

    # --- ports ---

    def _made(
        self,
        module: torch.nn.Module,
        given: Mapping[str, Any],
        *,
        dynamic: bool,
        exact: bool = False,
        progress: Callable[[str], None] = lambda stage: None,
    ) -> pipeline.Port:
        with self._example(module) as (twin, _):
            source = Source("module", model_class=f"{type(twin).__module__}.{type(twin).__qualname__}")
            progress("capture")
            detached = {name: _detached(value) for name, value in given.items()}
            with autocast.applied(autocast.asked()), recomputed.noted(twin) as again:
                program = capture(twin, detached, dynamic=dynamic, source=source, exact=exact, train=True)
            own = _own_weights(module)
            with autocast.left():
                program, masks = with_masks_as_inputs(program)
                reached = _reached(program)
                port = pipeline.port_program(program, twin, self.build, progress=progress, keep_example=False)
        session: Any = port.session
        if not isinstance(session, Trains):
            raise EngineError(f"{self.build.engine} computes no gradients.")
        weights = {n: own[n] for n in session.weights() if n in own}
        self._steps[id(port)] = Step(port, masks, weights, reached, frozenset(again.paths))
        if kept := sorted({*again.others, *session.recompute(again.paths)}):
            self._say(
                f"{type(module).__name__}: what {', '.join(kept)} computes is kept for the backward, though "
                "torch.utils.checkpoint would compute it again: only modules are, whose forward or call it is given"
            )
        port._original = port._program = None  # which hold the weights
        return port

    @contextlib.contextmanager
    def _example(self, module: torch.nn.Module) -> Iterator[tuple[Any, bool]]:
        with super()._example(module) as (twin, is_copy):
            modes = {path: inner.training for path, inner in module.named_modules()}
            for path, inner in twin.named_modules():
                inner.training = modes.get(path, inner.training)
            yield twin, is_copy


@contextlib.contextmanager
def _same_draws() -> Iterator[None]:
    """Whatever is drawn while a port is made is drawn again by who comes next: a run is that of PyTorch, to the bit."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(python)
    np.random.set_state(numpy)


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value


def _own_weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The names that weights have in a port -> the model's own tensors."""
    found: dict[str, torch.Tensor] = dict(module.named_buffers(remove_duplicate=False))
    found |= dict(module.named_parameters(remove_duplicate=False))
    return found


def _reached(program: Program) -> list[frozenset[str]]:
    """For each output, the weights and inputs on which it depends."""
    from paritas.run.torch.gradients import weight_names

    signature = program.exported.graph_signature
    names = weight_names(program)
    sources: dict[str, str] = {}
    for table in (signature.inputs_to_parameters, signature.inputs_to_buffers):
        sources |= {node: names.get(name, name) for node, name in table.items()}
    found: dict[Node, frozenset[str]] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            own = node.meta.get("paritas_input") or sources.get(node.name, "")
            found[node] = frozenset({own})
        else:
            found[node] = frozenset(chain.from_iterable(found[source] for source in node.all_input_nodes))
    (end,) = (node for node in program.graph.nodes if node.op == "output")
    return [found[value] for value in end.args[0] if isinstance(value, Node)]


class _Step(torch.autograd.Function):
    """A forward of the engine as a node of torch's autograd. Its inputs are the weights and inputs to differentiate
    by, of which it computes nothing itself: the engine reads them where they are."""

    @staticmethod
    def forward(
        ctx: Any,
        step: Step,
        feed: Mapping[str, Any],
        train: bool,
        weights: Sequence[str],
        by: Sequence[str],
        *tensors: Any,
    ) -> tuple[torch.Tensor, ...]:
        session: Any = step.port.session
        try:
            ctx.recorded = session.record(feed, by, train=train)
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"mindspore failed in training: {first_line(error)}") from error
        ctx.step, ctx.weights, ctx.by = step, weights, by
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)  # so that torch notices what is written to in between
        outputs = tuple(_tensors(step.port, ctx.recorded.outputs))
        wanted = {*weights, *by}
        ctx.mark_non_differentiable(
            *(
                out
                for out, reached in zip(outputs, step.reached, strict=True)
                if not out.is_floating_point() or not reached & wanted
            )
        )
        return outputs

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> Any:
        _ = ctx.saved_tensors
        if ctx.recorded is None:
            raise RuntimeError(
                "Trying to backward through a step of the engine a second time: what it kept for that is freed after "
                "the first. Compute the forward again, or add the losses up and differentiate once."
            )
        recorded, ctx.recorded = ctx.recorded, None
        given = [None if c is None else _array(c.detach()) for c in cotangents]
        pairs = zip(ctx.step.reached, given, strict=True)
        reached = frozenset().union(*(names for names, cotangent in pairs if cotangent is not None))
        found = recorded.backward(given)
        by = [_tensor(found.parameters.get(name)) if name in reached else None for name in ctx.weights]
        by += [_tensor(found.inputs.get(name)) if name in reached else None for name in ctx.by]
        return (None,) * 5 + tuple(by)


def _tensors(port: pipeline.Port, arrays: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """What a port returns, in the dtypes of the original's."""
    return [from_numpy(array, "torch", spec.dtype) for array, spec in zip(arrays, port.outputs, strict=True)]


def _array(tensor: torch.Tensor) -> np.ndarray:
    halves = tensor.dtype in (torch.float16, torch.bfloat16)
    array: np.ndarray = (tensor.float() if halves else tensor).contiguous().numpy()
    return array


def _tensor(array: Any) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(array)
