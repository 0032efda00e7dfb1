# SPDX-License-Identifier: Apache-2.0
"""Work that may hang, die or take all memory, in processes of its own: what has an answer is not lost with them."""

from __future__ import annotations

import multiprocessing
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Task = TypeVar("Task")

Row = dict[str, Any]


def each(
    tasks: Iterable[Task], work: Callable[[Task], Row], seconds: int, several: int = 1
) -> Iterator[tuple[Task, Row]]:
    """What `work` answers to each task, in order; of one in which its process ended, a state and why.

    seconds: of the processor, for one task. several: how many tasks a process has one after another. Processes begin as
    copies of this one, so that what it has imported is there.
    """
    left = list(tasks)
    while left:
        done = 0
        for row in _in_a_process(left[:several], work, seconds):
            yield left[done], row
            done += 1
        left = left[done:]


def _in_a_process(tasks: list[Any], work: Callable[[Any], Row], seconds: int) -> Iterator[Row]:
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_answered, args=(theirs, tasks, work, seconds))
    process.start()
    theirs.close()
    answered = 0
    try:
        while answered < len(tasks):
            row = ours.recv()
            answered += 1
            yield row
    except EOFError:
        process.join()
        is_slow = process.exitcode == -signal.SIGXCPU
        slow = {"state": "too slow", "why": f"over {seconds} s"}
        yield slow if is_slow else {"state": "killed", "why": f"exit code {process.exitcode}"}
    finally:
        process.kill()  # an engine's threads may keep it from ending
        process.join()


def _answered(pipe: Any, tasks: list[Any], work: Callable[[Any], Row], seconds: int) -> None:
    for task in tasks:
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        pipe.send(work(task))
