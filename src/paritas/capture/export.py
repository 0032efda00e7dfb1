# SPDX-License-Identifier: Apache-2.0
"""The only file that talks to `torch.export` and `transformers.exporters`, so that their drift stays here."""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch._functorch.eager_transforms
import torch._functorch.vmap
from torch._subclasses.fake_tensor import FakeTensor
from torch.export._trace import _export

from paritas.capture import autocast, detours, guards, patches, switches
from paritas.capture.forward import Call, Traced, flat_forward
from paritas.capture.functionalize import functional
from paritas.capture.origin import innermost_frame
from paritas.capture.time_limit import patience
from paritas.capture.training import without_side_effects
from paritas.errors import CaptureError, first_line
from paritas.pytree import has_states

#: input name -> {dimension: a `torch.export.Dim`}, as `torch.export.export(dynamic_shapes=)` takes it.
DynamicShapes = dict[str, Any] | None


#: What transformers calls the encoder of images inside a larger model.
_TOWERS = ("visual", "vision_tower", "vision_model")


def export(
    model: torch.nn.Module, call: Call, dynamic_shapes: DynamicShapes, *, train: bool = False
) -> tuple[torch.export.ExportedProgram, Traced, list[str]]:
    """The ATen graph of the model's forward, functional, with composite operators kept whole.

    Its inputs are `call.tensors`, in that order. A transformers model goes through transformers' own exporter,
    which patches what cannot be traced; any other module goes to `torch.export`, first non-strict, then strict.
    Both with the patches of `paritas.capture.patches`. train: what it draws and remembers in training mode becomes
    operators of ours, see `paritas.capture.training`. Returns the program, what its forward
    returned, and what had to be done differently.
    Raises `CaptureError` with torch's reason and the model's source line.
    """
    remarks: list[str] = []
    traced = Traced()
    if is_transformers(model):
        importlib.import_module("transformers.exporters.exporter_dynamo")  # which patches of ours mend
    with (
        quiet(),
        patience(),
        uncached(),
        detours.cut(),
        torch.no_grad(),
        guards.noted(),
        patches.applied(model) as done,
    ):
        try:
            program = _traced(model, call, dynamic_shapes, remarks, traced)
            halves = autocast.asked()
            with autocast.left():
                remarks += switches.remarks(program)
                _check_constants(program)
                if train and halves:
                    autocast.with_casts(program, halves)
                if train:
                    without_side_effects(program)
                program, written = functional(program)
                if train and halves:
                    autocast.mark(program)
            return program, traced, [*remarks, *written, *done.remarks()]
        except CaptureError:
            raise
        except Exception as error:
            raise CaptureError(_reason(model, error)) from error


def _traced(
    model: torch.nn.Module, call: Call, dynamic_shapes: DynamicShapes, remarks: list[str], traced: Traced
) -> torch.export.ExportedProgram:
    if is_transformers(model):
        # Of a cache of states, transformers' own taking apart would return sizes as well.
        own = traced if any(map(has_states, call.nesting.values())) else None
        return _export_transformers(model, call, dynamic_shapes, own)
    return _export_module(model, call, dynamic_shapes, remarks, traced)


def _check_constants(program: torch.export.ExportedProgram) -> None:
    """A tensor that torch lost sight of would stand in the graph as a constant, without values."""
    lost = [name for name, value in program.constants.items() if isinstance(value, FakeTensor)]
    if lost:
        raise CaptureError(
            f"torch.export lost sight of {len(lost)} tensors that the model makes of its inputs by something else than "
            "operators (storages, sub-interpreters, other libraries). Make them by torch's operators."
        )


def is_transformers(model: torch.nn.Module) -> bool:
    """Whether `model` is a `PreTrainedModel`, without importing transformers for one that is not."""
    module = sys.modules.get("transformers.modeling_utils")
    return module is not None and isinstance(model, module.PreTrainedModel)


def prepare(model: torch.nn.Module, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with those that transformers' exporter computes in advance, by loops over the values of others.

    `cu_seqlens` and `position_ids` of packed images, of `grid_thw`, for example. Arguments that are there stay.
    """
    if not is_transformers(model):
        return dict(arguments)
    from transformers.exporters.utils import precompute_export_inputs

    found = dict(arguments)
    with torch.no_grad():
        precompute_export_inputs(model, found)
        for kind in ("image", "video"):
            found |= _prepared_for_the_tower(model, found, kind)
    return found


def _prepared_for_the_tower(model: Any, arguments: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What the vision tower inside a larger model needs, under the names by which that model hands it down."""
    from transformers.exporters.utils import precompute_export_inputs

    grid = arguments.get(f"{kind}_grid_thw")
    tower = next((m for name, m in model.named_modules() if name.rpartition(".")[2] in _TOWERS), None)
    features = getattr(model, f"get_{kind}_features", None)
    if not isinstance(grid, torch.Tensor) or tower is None or not hasattr(features, "__wrapped__"):
        return {}
    if not any(hasattr(module, "window_size") for module in tower.modules()):
        return {}  # what the others compute of the grid can be traced
    found = {"grid_thw": grid}
    precompute_export_inputs(tower, found)
    return {f"{kind}_{name}": value for name, value in found.items() if name != "grid_thw"}


def _export_transformers(
    model: Any, call: Call, dynamic_shapes: DynamicShapes, traced: Traced | None
) -> torch.export.ExportedProgram:
    from transformers.exporters import DynamoConfig, DynamoExporter, utils

    with flat_forward(model, call, traced) as names:
        if dynamic_shapes is not None:
            dynamic_shapes = {names[name]: dims for name, dims in dynamic_shapes.items()}
        config = DynamoConfig(dynamic=dynamic_shapes is not None, dynamic_shapes=dynamic_shapes)
        tensors = {names[name]: tensor for name, tensor in call.tensors.items()}
        # `prepare` has been there: the exporter would overwrite its tensors, and add arguments without a shape.
        with utils.patch_attribute(utils, "precompute_export_inputs", lambda original: lambda model, inputs: None):
            return DynamoExporter().export_program(model, tensors, config)[0]


def _export_module(
    model: torch.nn.Module, call: Call, dynamic_shapes: DynamicShapes, remarks: list[str], traced: Traced
) -> torch.export.ExportedProgram:
    def run(strict: bool) -> torch.export.ExportedProgram:
        with flat_forward(model, call, None if strict else traced) as names, switches.known():
            shapes = dynamic_shapes
            if shapes is not None:
                shapes = {names[name]: dims for name, dims in shapes.items()}
            tensors = {names[name]: tensor for name, tensor in call.tensors.items()}
            if transformed:
                return _export(model, (), tensors, dynamic_shapes=shapes, strict=False, pre_dispatch=False)
            return torch.export.export(model, (), tensors, dynamic_shapes=shapes, strict=strict)

    transformed = False
    try:
        with _transforms_seen() as seen:
            program = run(strict=False)
            transformed = bool(seen)
            return run(strict=False) if transformed else program
    except CaptureError:
        raise
    except Exception as error:  # noqa: BLE001 - torch.export raises anything
        reason = first_line(error)
        try:
            if seen and not transformed:
                transformed = True
                return run(strict=False)
            with torch.compiler.set_stance("default"):  # strict export is torch's compiler itself
                program = run(strict=True)
        except Exception:  # noqa: BLE001 - likewise
            raise error from None  # the non-strict error names the model's own line
        remarks.append(f"captured with strict=True, because without: {reason}")
        traced.structure = None
        return program


@contextlib.contextmanager
def _transforms_seen() -> Iterator[list[str]]:
    """Which transforms of functions (vmap, grad, jvp) a forward enters: a graph above them does not run."""
    found: list[str] = []
    names = ("_vmap_increment_nesting", "_grad_increment_nesting", "_jvp_increment_nesting")
    modules = (torch._functorch.vmap, torch._functorch.eager_transforms)
    places = [(module, name) for module in modules for name in names if hasattr(module, name)]
    before = {(module, name): getattr(module, name) for module, name in places}

    def watched(name: str, own: Any) -> Any:
        def enter(*args: Any) -> Any:
            found.append(name)
            return own(*args)

        return enter

    for module, name in places:
        setattr(module, name, watched(name, before[module, name]))
    try:
        yield found
    finally:
        for module, name in places:
            setattr(module, name, before[module, name])


def _reason(model: torch.nn.Module, error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    where = innermost_frame(error.__traceback__)
    lines = [line for line in text.splitlines() if line.strip()][:6]
    return (
        f"torch.export cannot capture {type(model).__name__}: {type(error).__name__}\n  "
        + "\n  ".join(lines)
        + (f"\nat {where}" if where else "")
        + "\nIf the reason is a data-dependent branch, pass inputs that avoid it, or rewrite the line with torch.where."
    )


@contextlib.contextmanager
def uncached() -> Iterator[None]:
    """What torch keeps of each operator's shapes costs more, with free sizes, than to infer them anew (torch 2.11).

    And so do the rounds of the garbage collector, which finds nothing in a trace but what is needed.
    """
    import torch._dynamo.config as settings

    collects = gc.isenabled()
    gc.disable()
    try:
        with settings.patch(fake_tensor_cache_enabled=False):
            yield
    finally:
        if collects:
            gc.enable()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' own warnings from the user: what matters in them comes back as notes."""
    names = ("transformers", "torch.export", "torch._export", "torch.fx.experimental.symbolic_shapes")
    loggers = [logging.getLogger(name) for name in names]
    printing: Any = sys.modules["torch.export._trace"]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        printing.print = lambda *args, **kwargs: None  # it prints the graph, as far as it got, on stderr
        try:
            yield
        finally:
            vars(printing).pop("print", None)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
