# SPDX-License-Identifier: Apache-2.0
"""torch's collectives on an engine's: what each does with the values of two processes, here two threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from paritas.dropin.collectives import EngineGroup
from paritas.errors import EngineError


class Threads:
    """Collectives of two threads of this process."""

    lacks = {"reduce_scatter": "something else"}  # noqa: RUF012

    def __init__(self, rank: int, met: threading.Barrier, table: list[Any]) -> None:
        self.rank, self.size, self._met, self._table = rank, 2, met, table

    def gather(self, array: np.ndarray) -> np.ndarray:
        self._table[self.rank] = array.copy()
        self._met.wait(10)
        found = np.stack(self._table)
        self._met.wait(10)
        return found

    def sum(self, array: np.ndarray) -> np.ndarray:
        return self.gather(array).sum(0)

    def broadcast(self, array: np.ndarray, root: int) -> np.ndarray:
        return self.gather(array)[root]

    def barrier(self) -> None:
        self._met.wait(10)


def _both(work: Callable[[EngineGroup, int], Any]) -> list[Any]:
    met, table = threading.Barrier(2), [None, None]
    groups = [EngineGroup(Threads(rank, met, table), "threads") for rank in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, groups, (0, 1)))


def _options(kind: Any, **values: Any) -> Any:
    found = kind()
    for name, value in values.items():
        setattr(found, name, value)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64], ids=str)
@pytest.mark.parametrize(
    ("op", "want"),
    [
        (dist.ReduceOp.SUM, [5, 9]),
        (dist.ReduceOp.MAX, [4, 7]),
        (dist.ReduceOp.MIN, [1, 2]),
        (dist.ReduceOp.PRODUCT, [4, 14]),
    ],
    ids=["sum", "max", "min", "product"],
)
def test_reduced(dtype: torch.dtype, op: Any, want: list[int]) -> None:
    def work(group: EngineGroup, rank: int) -> torch.Tensor:
        tensor = torch.tensor([[1, 2], [4, 7]][rank], dtype=dtype)
        group.allreduce([tensor], _options(dist.AllreduceOptions, reduceOp=op)).wait()
        return tensor

    for found in _both(work):
        assert found.dtype == dtype and found.tolist() == want


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.bool], ids=str)
def test_moved_as_they_are(dtype: torch.dtype) -> None:
    def work(group: EngineGroup, rank: int) -> tuple[Any, ...]:
        mine = torch.tensor([rank, 1, 1 - rank]).to(dtype)
        sent, whole = mine.clone(), torch.empty(6, dtype=dtype)
        rows = [torch.empty(3, dtype=dtype) for _ in range(2)]
        group.broadcast([sent], _options(dist.BroadcastOptions, rootRank=1))
        group.allgather([rows], [mine])
        group._allgather_base(whole, mine)
        return sent, torch.cat(rows), whole

    for sent, rows, whole in _both(work):
        assert sent.float().tolist() == [1, 1, 0]
        assert rows.float().tolist() == whole.float().tolist() == [0, 1, 1, 1, 1, 0]


def test_each_keeps_its_part_of_a_sum() -> None:
    def work(group: EngineGroup, rank: int) -> list[float]:
        part = torch.empty(2)
        group._reduce_scatter_base(part, torch.arange(4.0) * (rank + 1), _options(dist.ReduceScatterOptions))
        return part.tolist()

    assert _both(work) == [[0.0, 3.0], [6.0, 9.0]]


def test_what_it_has_not_is_refused() -> None:
    group = EngineGroup(Threads(0, threading.Barrier(1), [None]), "threads")
    with pytest.raises(EngineError, match="threads sends nothing from one process to one other"):
        group.send([torch.zeros(1)], 1, 0)
