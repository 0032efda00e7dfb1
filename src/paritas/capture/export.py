# SPDX-License-Identifier: Apache-2.0
"""The only file that talks to `torch.export` and `transformers.exporters`, so that their drift stays here."""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from paritas.capture.origin import innermost_frame
from paritas.errors import CaptureError

#: input name -> {dimension: a `torch.export.Dim`}, as `torch.export.export(dynamic_shapes=)` takes it.
DynamicShapes = dict[str, Any] | None


_OUTPUT_FLAGS = frozenset({"use_cache", "return_dict", "output_attentions", "output_hidden_states"})


def export(
    model: torch.nn.Module, inputs: Mapping[str, Any], dynamic_shapes: DynamicShapes
) -> tuple[torch.export.ExportedProgram, list[str]]:
    """The ATen graph of `model.forward(**inputs)`, functional, with composite operators kept whole.

    A transformers model goes through transformers' own exporter, which patches what cannot be traced;
    any other module goes to `torch.export`, first non-strict, then strict. Returns the program and what
    had to be done differently. Raises `CaptureError` with torch's reason and the model's source line.
    """
    remarks: list[str] = []
    with quiet(), torch.no_grad():
        try:
            if is_transformers(model):
                program = _export_transformers(model, inputs, dynamic_shapes)
            else:
                program = _export_module(model, inputs, dynamic_shapes, remarks)
            # {}: decompose nothing. Engines have kernels for linear, layer_norm, attention; this only makes
            # the graph functional.
            return program.run_decompositions({}), remarks
        except CaptureError:
            raise
        except Exception as error:
            raise CaptureError(_reason(model, error)) from error


def is_transformers(model: torch.nn.Module) -> bool:
    """Whether `model` is a `PreTrainedModel`, without importing transformers for one that is not."""
    module = sys.modules.get("transformers.modeling_utils")
    return module is not None and isinstance(model, module.PreTrainedModel)


def _export_transformers(
    model: Any, inputs: Mapping[str, Any], dynamic_shapes: DynamicShapes
) -> torch.export.ExportedProgram:
    from transformers.exporters import DynamoConfig, DynamoExporter

    if dynamic_shapes is not None:  # the exporter takes output flags such as use_cache out of the inputs
        dynamic_shapes = {name: dynamic_shapes.get(name) for name in inputs if name not in _OUTPUT_FLAGS}
    config = DynamoConfig(dynamic=dynamic_shapes is not None, dynamic_shapes=dynamic_shapes)
    own_forward = "forward" in vars(model)
    try:
        with _flags_on_every_config(model, {n: v for n, v in inputs.items() if n in _OUTPUT_FLAGS}):
            return DynamoExporter().export_program(model, dict(inputs), config)[0]
    finally:
        if not own_forward:  # the exporter puts the method back as an attribute, which a copy would share
            vars(model).pop("forward", None)


@contextlib.contextmanager
def _flags_on_every_config(model: torch.nn.Module, flags: Mapping[str, Any]) -> Iterator[None]:
    """The exporter sets output flags on the model's own config only; T5's decoder has one of its own."""
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values()
    before = [(c, name, getattr(c, name)) for c in configs for name in flags if hasattr(c, name)]
    try:
        for config, name, _ in before:
            setattr(config, name, flags[name])
        yield
    finally:
        for config, name, value in before:
            setattr(config, name, value)


def _export_module(
    model: torch.nn.Module, inputs: Mapping[str, Any], dynamic_shapes: DynamicShapes, remarks: list[str]
) -> torch.export.ExportedProgram:
    def run(strict: bool) -> torch.export.ExportedProgram:
        with _flat_signature(model, inputs):
            return torch.export.export(model, (), dict(inputs), dynamic_shapes=dynamic_shapes, strict=strict)

    try:
        return run(strict=False)
    except Exception as error:  # noqa: BLE001 - torch.export raises anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        try:
            program = run(strict=True)
        except Exception:  # noqa: BLE001 - likewise
            raise error from None  # the non-strict error names the model's own line
        remarks.append(f"captured with strict=True, because without: {reason}")
        return program


@contextlib.contextmanager
def _flat_signature(model: torch.nn.Module, inputs: Mapping[str, Any]) -> Iterator[None]:
    """Give a forward with `**kwargs` the explicit parameters that `dynamic_shapes` has to match."""
    parameters = inspect.signature(model.forward).parameters.values()
    if all(p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters):
        yield
        return
    original = model.forward

    def forward(**kwargs: Any) -> Any:
        return original(**kwargs)

    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in inputs]
    )
    model.forward = forward
    try:
        yield
    finally:
        del model.forward


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
def quiet() -> Iterator[None]:
    """Keep the exporters' own warnings from the user: what matters in them comes back as notes."""
    loggers = [logging.getLogger(name) for name in ("transformers", "torch.export", "torch._export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
