# SPDX-License-Identifier: Apache-2.0
"""MindSpore's own launcher, `msrun`, and its collectives on the CPU, on NumPy's arrays.

MindSpore 2.10 has AllReduce, for sums of floats, AllGather and Broadcast there, and no ReduceScatter.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paritas.run.mindspore.session import imported
from paritas.run.mindspore.values import in_mode, to_numpy
from paritas.run.turns import turn

#: msrun starts the first python3 of PATH, which is to be this one.
_MSRUN = """
import os, sys
os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
from mindspore.parallel.cluster.run import main
sys.exit(main())
"""


def command(processes: int, port: int, logs: Path, script: Sequence[str]) -> list[str]:
    """What starts `script`, a file of Python's with its arguments, in so many processes of this machine.

    port: free, for the scheduler that msrun starts beside them. logs: of each process; the first one's is shown.
    """
    return [
        sys.executable, "-c", _MSRUN, f"--worker_num={processes}", f"--local_worker_num={processes}",
        f"--master_port={port}", f"--log_dir={logs}", "--join=True", "--tail_worker_log=0", "--cluster_time_out=120",
        "python3", *script,
    ]  # fmt: skip


class MindSporeCollectives:
    """Collectives of the processes that `msrun` has started. The scheduler among them ends here."""

    def __init__(self) -> None:
        ms = imported()
        ms.set_device("CPU")
        ms.communication.init()
        self._ms = ms
        self.rank, self.size = int(ms.communication.get_rank()), int(ms.communication.get_group_size())
        self.lacks = {"reduce_scatter": "AllReduce, of whose sum each process keeps its part"}
        self._sum, self._gather = ms.ops.AllReduce(), ms.ops.AllGather()
        self._broadcast = [ms.ops.Broadcast(root) for root in range(self.size)]

    def sum(self, array: np.ndarray) -> np.ndarray:
        return self._computed(self._sum, np.ascontiguousarray(array, np.float32)).reshape(array.shape)

    def gather(self, array: np.ndarray) -> np.ndarray:
        words = _words(array)
        found = self._computed(self._gather, words).reshape(self.size, len(words))
        return np.stack([_array(row, array) for row in found])

    def broadcast(self, array: np.ndarray, root: int) -> np.ndarray:
        def one(tensor: Any) -> Any:
            return self._broadcast[root]((tensor,))[0]

        return _array(self._computed(one, _words(array)), array)

    def barrier(self) -> None:
        self.sum(np.zeros(1, np.float32))

    def _computed(self, operation: Any, array: np.ndarray) -> np.ndarray:
        with turn(computes=False), in_mode(self._ms, "pynative"):
            return to_numpy(operation(self._ms.Tensor(array.reshape(-1))))


def _words(array: np.ndarray) -> np.ndarray:
    """The bytes of an array as int32 [n], which the kernels move as they are."""
    data = np.ascontiguousarray(array).tobytes()
    return np.frombuffer(data + bytes(-len(data) % 4 or (0 if data else 4)), np.int32)


def _array(words: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.frombuffer(words.tobytes()[: like.nbytes], like.dtype).reshape(like.shape).copy()
