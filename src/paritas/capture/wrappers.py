# SPDX-License-Identifier: Apache-2.0
"""What stands around a module (compilers, parallel training) is taken off; what has no graph is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from paritas.errors import SourceError
from paritas.program import Note

#: Wrappers by their classes -> where they hold the module.
_AROUND = {
    "torch._dynamo.eval_frame.OptimizedModule": ("_orig_mod", "torch.compile"),
    "torch.nn.parallel.data_parallel.DataParallel": ("module", "DataParallel"),
    "torch.nn.parallel.distributed.DistributedDataParallel": ("module", "DistributedDataParallel"),
}

_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.ao.nn.sparse.quantized")


def bare(source: Any, notes: list[Note]) -> Any:
    """The module inside `source`. Raises `SourceError` for what cannot be captured, and says what to give instead."""
    while found := next((_AROUND[name] for name in _classes(source) if name in _AROUND), None):
        attribute, name = found
        notes.append(Note("capture", f"the module inside {name} was captured"))
        source = getattr(source, attribute)
    name = type(source).__name__
    if name == "ExportedProgram":
        raise SourceError(
            "An ExportedProgram holds a graph without the module's source. Pass the module that was exported, with "
            "inputs= as torch.export had them."
        )
    if isinstance(source, torch.jit.ScriptFunction):
        raise SourceError("A TorchScript function is no module. Pass the torch.nn.Module that it was made of.")
    if not isinstance(source, torch.nn.Module):
        return source
    _check(source)
    plain: Any = getattr(source, "in_pytorch", None)  # a model that is on an engine already says what it was
    return plain() if callable(plain) else source


def _classes(source: Any) -> list[str]:
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in type(source).__mro__]


def _check(model: torch.nn.Module) -> None:
    for path, module in model.named_modules():
        where = f"{type(module).__name__} at {path}" if path else f"This {type(module).__name__}"
        if isinstance(module, torch.jit.ScriptModule):
            raise SourceError(
                f"{where} is TorchScript, which has no Python source to capture. Pass the torch.nn.Module that it was "
                "scripted or traced from, with the same weights."
            )
        if type(module).__module__.startswith(_QUANTISED):
            raise SourceError(
                f"{where} is quantised: its weights are packed for PyTorch's own kernels. Port the float model, with "
                "weights='int8' for OpenVINO."
            )
        if any("FullyShardedDataParallel" in name for name in _classes(module)):
            raise SourceError(
                f"{where} holds only a shard of its weights. Gather them into the plain module, and pass that."
            )
        for name, tensor in _own_tensors(module):
            _check_tensor(f"{path}.{name}".lstrip("."), tensor)


def _check_tensor(name: str, tensor: torch.Tensor) -> None:
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    if torch.nn.parameter.is_lazy(tensor):
        raise SourceError(
            f"{name} has no values yet: its module is lazy. Call the model once on an example, then port it."
        )
    if tensor.layout is not torch.strided:
        form = str(tensor.layout).removeprefix("torch.")
        raise SourceError(f"{name} is {form}, of which no engine computes. Make it dense first: .to_dense().")
    kind = type(tensor)
    packed = kind.__module__.partition(".")[0] in ("torchao", "bitsandbytes")
    if tensor.is_quantized or packed or is_traceable_wrapper_subclass(tensor):
        what = f"a quantised {kind.__qualname__}" if tensor.is_quantized else f"a {kind.__module__}.{kind.__qualname__}"
        raise SourceError(
            f"{name} is {what}, which is stored in a form of its own. Make it a plain tensor first: dequantise it, "
            "or load the float checkpoint."
        )


def _own_tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for table in (module._parameters, module._buffers):
        yield from ((name, tensor) for name, tensor in table.items() if tensor is not None)
