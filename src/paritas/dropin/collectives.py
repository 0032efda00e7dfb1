# SPDX-License-Identifier: Apache-2.0
"""torch.distributed on an engine's own collectives, so that whatever trains in several processes with torch does so
here: DistributedDataParallel, ZeroRedundancyOptimizer, accelerate and transformers' Trainer."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.futures import Future

from paritas.errors import EngineError
from paritas.run.processes import Collectives

logger = logging.getLogger("paritas.dropin")

Tensors = Sequence[torch.Tensor]

#: What the engine's own sum does not do is done here, of every process's values.
_REDUCED: dict[Any, Callable[[np.ndarray], np.ndarray]] = {
    dist.ReduceOp.SUM: lambda rows: rows.sum(0, dtype=rows.dtype),
    dist.ReduceOp.AVG: lambda rows: rows.mean(0).astype(rows.dtype),
    dist.ReduceOp.MAX: lambda rows: rows.max(0),
    dist.ReduceOp.MIN: lambda rows: rows.min(0),
    dist.ReduceOp.PRODUCT: lambda rows: rows.prod(0, dtype=rows.dtype),
}


def join(collectives: Collectives, name: str) -> None:
    """Let torch.distributed speak through the engine's collectives, under the engine's name as its backend."""
    os.environ.update(RANK=str(collectives.rank), LOCAL_RANK=str(collectives.rank))
    os.environ.update(WORLD_SIZE=str(collectives.size), LOCAL_WORLD_SIZE=str(collectives.size))

    def group(store: Any, rank: int, size: int, timeout: Any) -> EngineGroup:
        if size != collectives.size:
            raise EngineError(f"{name} has collectives of all {collectives.size} processes, and of no {size} of them.")
        return EngineGroup(collectives, name)

    dist.Backend.register_backend(name, group, devices=["cpu"])
    # Nothing is kept in it but what torch says to itself: the processes meet in the engine.
    dist.init_process_group(name, store=dist.HashStore(), rank=collectives.rank, world_size=collectives.size)


class _Done(dist._Work):
    """Of what was computed before it was returned."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self._future: Future[Any] = Future()
        self._future.set_result(result)

    def wait(self, timeout: Any = None) -> bool:
        return True

    def get_future(self) -> Any:
        return self._future


#: Whose stubs have two forms of each method, the older of which torch calls.
_Group: Any = dist.ProcessGroup


class EngineGroup(_Group):
    """A process group of torch's on an engine's collectives, each of which ends before it returns."""

    def __init__(self, collectives: Collectives, name: str) -> None:
        super().__init__(collectives.rank, collectives.size)
        self._collectives, self._name = collectives, name
        self._said: set[str] = set()

    def getBackendName(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {self._name}, {self._collectives.rank} of {self._collectives.size}"

    # --- in torch's words ---

    def allreduce(self, tensors: Tensors, options: Any = None) -> Any:
        op = dist.ReduceOp.SUM if options is None else options.reduceOp
        for tensor in tensors:
            _put(tensor, self._reduced(tensor, op))
        return _Done(list(tensors))

    def allreduce_coalesced(self, tensors: Tensors, options: Any = None) -> Any:
        return self.allreduce(tensors, options)

    def reduce(self, tensors: Tensors, options: Any = None) -> Any:
        return self.allreduce(tensors, options)

    def broadcast(self, tensors: Tensors, options: Any = None) -> Any:
        root = 0 if options is None else options.rootRank
        for tensor in tensors:
            _put(tensor, self._collectives.broadcast(_bytes_of(tensor), root))
        return _Done(list(tensors))

    def allgather(self, outputs: Sequence[Tensors], inputs: Tensors, _: Any = None) -> Any:
        for places, tensor in zip(outputs, inputs, strict=True):
            for place, row in zip(places, self._collectives.gather(_bytes_of(tensor)), strict=True):
                _put(place, row)
        return _Done([list(places) for places in outputs])

    def _allgather_base(self, output: torch.Tensor, tensor: torch.Tensor, _: Any = None) -> Any:
        _put(output, self._collectives.gather(_bytes_of(tensor)))
        return _Done([output])

    all_gather_single = _allgather_base

    def allgather_into_tensor_coalesced(self, outputs: Any, inputs: Any, options: Any = None) -> Any:
        for output, tensor in zip(outputs, inputs, strict=True):
            self._allgather_base(output, tensor)
        return _Done(list(outputs))

    def gather(self, outputs: Sequence[Tensors], inputs: Tensors, options: Any) -> Any:
        rows = self._collectives.gather(_bytes_of(inputs[0]))
        for places in outputs if options.rootRank == self._collectives.rank else ():
            for place, row in zip(places, rows, strict=True):
                _put(place, row)
        return _Done([list(places) for places in outputs])

    def scatter(self, outputs: Tensors, inputs: Sequence[Tensors], options: Any) -> Any:
        (output,) = outputs
        whole = torch.stack(list(inputs[0])) if inputs else output.new_empty(self._collectives.size, *output.shape)
        _put(output, self._collectives.broadcast(_bytes_of(whole), options.rootRank)[self._collectives.rank])
        return _Done([output])

    def reduce_scatter(self, outputs: Tensors, inputs: Sequence[Tensors], options: Any) -> Any:
        for output, parts in zip(outputs, inputs, strict=True):
            self._reduce_scatter_base(output, torch.stack(list(parts)), options)
        return _Done(list(outputs))

    def _reduce_scatter_base(self, output: torch.Tensor, tensor: torch.Tensor, options: Any) -> Any:
        self._say("reduce_scatter")
        whole = self._reduced(tensor, options.reduceOp)
        _put(output, whole.reshape(self._collectives.size, -1)[self._collectives.rank])
        return _Done([output])

    reduce_scatter_single = _reduce_scatter_base

    def barrier(self, options: Any = None) -> Any:
        self._collectives.barrier()
        return _Done([])

    def _refused(self, *_: Any) -> Any:
        raise EngineError(f"{self._name} sends nothing from one process to one other on the CPU.")

    send = recv = recv_anysource = alltoall = alltoall_base = all_to_all_single = _refused

    # --- in the engine's ---

    def _reduced(self, tensor: torch.Tensor, op: Any) -> np.ndarray:
        kind = getattr(op, "op", op)
        if tensor.dtype == torch.float32 and kind in (dist.ReduceOp.SUM, dist.ReduceOp.AVG):
            found = self._collectives.sum(tensor.detach().numpy())
            return found / np.float32(self._collectives.size) if kind == dist.ReduceOp.AVG else found
        if kind not in _REDUCED:
            raise EngineError(f"{self._name} has no {op} of several processes on the CPU.")
        wide = tensor.detach().float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor.detach()
        return _REDUCED[kind](self._collectives.gather(wide.numpy()))

    def _say(self, operation: str) -> None:
        if operation not in self._said and operation in self._collectives.lacks:
            self._said.add(operation)
            logger.info("%s has no %s on the CPU: %s", self._name, operation, self._collectives.lacks[operation])


def _bytes_of(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's values, or where NumPy has no such dtype its bytes."""
    tensor = tensor.detach().contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _put(tensor: torch.Tensor, array: np.ndarray) -> None:
    """Write what a collective has found into a tensor, in whose dtype or bytes it is."""
    found = torch.from_numpy(np.ascontiguousarray(array))
    if tensor.dtype == torch.bfloat16 and found.dtype == torch.int16:
        found = found.view(torch.bfloat16)
    with torch.no_grad():
        tensor.detach().copy_(found.reshape(tensor.shape))
