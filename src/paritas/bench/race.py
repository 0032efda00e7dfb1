# SPDX-License-Identifier: Apache-2.0
"""Time per call against PyTorch eager: every contender in a process of its own, taking turns.

In one process the engines' thread pools disturb each other: with MindSpore or OpenVINO loaded beside it,
PyTorch ran up to 8 times slower, which flatters every port. So each contender is a child process that
loads its model by itself (`paritas.bench.contender`) and is asleep, waiting for a line on a pipe, while
another one is being timed. Turns are short and repeated, so that a busy machine is busy for all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paritas import leftovers
from paritas.errors import OriginalMissing
from paritas.extras import install, missing
from paritas.program import Source
from paritas.run.engine import about
from paritas.run.session import runs_on
from paritas.workers import Limits, Worker

if TYPE_CHECKING:
    from rich.console import RenderableType

    from paritas.verify.subject import Subject


#: Called with what happens as it begins: "loading torch eager", "round 3 of 10".
Progress = Callable[[str], None]

#: Longest wait for one line of a contender, in seconds: a compile of a large graph on a busy machine.
PATIENCE = 900.0


@dataclasses.dataclass(frozen=True)
class Contender:
    """What a child process loads: a port's directory, or (with `source`) the original itself."""

    name: str
    directory: str = ""
    mode: str = ""
    precision: str = ""
    source: Source | None = None
    dtype: str = ""
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # fixed arguments of the original
    allow_modified: bool = False  # as for `paritas.load`
    device: str = ""
    config: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.directory) == bool(self.source):
            raise ValueError(f"{self.name}: give the directory of a port, or the source of an original.")


@dataclasses.dataclass(frozen=True)
class Timing:
    """What one contender did. Times in seconds; `fault` says why there are none."""

    name: str
    rounds: tuple[tuple[float, ...], ...] = ()  # the time of every call, round by round
    processor: float = 0.0  # time per call, summed over the cores: what a busy machine changes least
    load: float = 0.0  # from the start of the process to a loaded model, imports included
    first: float = 0.0  # the first call, compilation included
    memory: int = 0  # peak resident bytes of the process
    precision: str = ""  # the arithmetic that really happens
    version: str = ""  # of the engine
    process: int = 0  # its id
    ratio: float | None = None  # the baseline's median / this median: above 1 is faster than the baseline
    fault: str = ""

    @property
    def calls(self) -> tuple[float, ...]:
        return tuple(call for one in self.rounds for call in one)

    @property
    def median(self) -> float:
        return statistics.median(self.calls) if self.calls else float("nan")

    @property
    def best(self) -> float:
        return min(self.calls, default=float("nan"))

    @property
    def p90(self) -> float:
        return float(np.quantile(self.calls, 0.9)) if self.calls else float("nan")


@dataclasses.dataclass(frozen=True)
class BenchReport:
    """Who took how long, where, and how quiet it was there. A value: text, table, JSON."""

    subject: str
    timings: tuple[Timing, ...]
    machine: str
    cores: int  # that each contender might use
    versions: Mapping[str, str]
    date: str
    noise: float  # the share of the machine's time that other processes took while contenders ran
    notes: tuple[str, ...] = ()

    @property
    def quiet(self) -> bool:
        """Whether the figures can be trusted to some per cent."""
        return self.noise <= 0.1

    def __getitem__(self, name: str) -> Timing:
        return next(timing for timing in self.timings if timing.name == name)

    def __str__(self) -> str:
        rows = [_HEAD, *(_cells(timing) for timing in self.timings)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
        lines = [self.subject, *("  ".join(_align(row, widths)).rstrip() for row in rows), self._where()]
        return "\n".join([*lines, *(f"note: {note}" for note in self._all_notes())])

    def terminal(self) -> RenderableType:
        """A table for `rich.print`."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(self.subject), title_justify="left", box=None, pad_edge=False)
        for column, title in enumerate(_HEAD):
            table.add_column(title, justify="right" if column else "left")
        for timing in self.timings:
            style = "red" if timing.fault else "green" if (timing.ratio or 0) > 1 else ""
            table.add_row(*map(Text, _cells(timing)), style=style)
        return Group(table, *map(Text, (self._where(), *(f"note: {note}" for note in self._all_notes()))))

    def to_json(self) -> str:
        data = dataclasses.asdict(self)
        for row, timing in zip(data["timings"], self.timings, strict=True):
            row |= {name: getattr(timing, name) if timing.calls else None for name in ("median", "best", "p90")}
        return json.dumps(data, indent=1)

    @classmethod
    def from_json(cls, text: str) -> BenchReport:
        """The report that `to_json` wrote. Figures that follow from others are computed again."""
        data = json.loads(text)
        fields = {field.name for field in dataclasses.fields(Timing)}
        rows = [{key: value for key, value in row.items() if key in fields} for row in data.pop("timings")]
        timings = tuple(Timing(**{**row, "rounds": tuple(map(tuple, row["rounds"]))}) for row in rows)
        return cls(**{**data, "timings": timings, "notes": tuple(data["notes"])})

    def _where(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{self.machine}; {self.cores} cores each; {versions}; {self.date}"

    def _all_notes(self) -> Iterator[str]:
        if not self.quiet:
            yield f"other processes took {self.noise:.0%} of this machine meanwhile: repeat on a quiet one"
        yield from self.notes
        for timing in self.timings:
            if timing.fault:
                yield f"{timing.name} failed: {timing.fault}"


_HEAD = ("", "ratio", "median", "min", "p90", "cpu", "calls", "load", "first", "peak")


def _cells(timing: Timing) -> tuple[str, ...]:
    if timing.fault:
        return (timing.name, "failed", *[""] * (len(_HEAD) - 2))
    milliseconds = [f"{1000 * value:.1f} ms" for value in (timing.median, timing.best, timing.p90, timing.processor)]
    ratio = "" if timing.ratio is None else f"{timing.ratio:.2f}x"
    seconds = [f"{value:.1f} s" for value in (timing.load, timing.first)]
    return (timing.name, ratio, *milliseconds, str(len(timing.calls)), *seconds, f"{timing.memory / 2**20:.0f} MiB")


def _align(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


# --- a port ------------------------------------------------------------------------------------


def bench_port(
    port: Subject,
    inputs: Any = None,
    *,
    seconds: float = 10.0,
    baseline: bool = True,
    against: Sequence[Subject] = (),
    cores: int = 0,
    progress: Progress | None = None,
) -> BenchReport:
    """Time `port` against its original in PyTorch eager.

    inputs: what to call both with; generated if None. seconds: how long each is timed. baseline=False times
    the port alone. against: other ports of the same original, raced beside it. cores: how many each may
    use; all by default. A contender that fails is a `fault` in the report; a baseline that cannot be
    loaded again (a module that was in memory only) is a note.
    """
    feed = _feed(port, inputs)
    notes: list[str] = []
    with leftovers.temporary() as scratch:
        contenders: list[Contender] = []
        if baseline and missing("port"):
            notes.append(f"no baseline: PyTorch is not installed ({install('port')})")
        elif baseline:
            try:
                contenders.append(_original(port, Path(scratch, "original")))
            except ValueError as error:
                notes.append(str(error))
        for number, one in enumerate((port, *against)):
            contenders.append(_ported(one, Path(scratch, f"port-{number}")))
        names = [contender.name for contender in contenders]
        contenders = [
            dataclasses.replace(c, name=f"{c.name} ({names[:i].count(c.name) + 1})") if names.count(c.name) > 1 else c
            for i, c in enumerate(contenders)
        ]
        report = race(contenders, feed, seconds, subject=_subject(port), cores=cores, progress=progress)
    return dataclasses.replace(report, notes=(*notes, *report.notes))


def _subject(port: Subject) -> str:
    source = port.manifest.source
    return source.name or source.model_class.rpartition(".")[-1]


def _feed(port: Subject, inputs: Any) -> dict[str, np.ndarray]:
    manifest = port.manifest
    if inputs is not None:
        return port.feed(inputs)
    from paritas.verify import generate
    from paritas.verify.inputs.sizes import size_ranges, ways

    return dict(generate(port.inputs, limits=size_ranges(manifest.limits), ways=ways(manifest))[0].feed)


def _ported(port: Subject, scratch: Path) -> Contender:
    manifest, directory = port.manifest, port.artifact.directory
    if not (directory / "port.json").is_file():  # not saved yet
        port.save(scratch)
        directory = scratch
    session = port.session
    # On the CPU nobody asks where.
    where = "" if (found := runs_on(session)) == "cpu" else found.upper()
    name = " ".join(part for part in (manifest.engine, port.mode, session.precision, where) if part)
    return Contender(
        name,
        str(directory),
        port.mode,
        session.precision,
        allow_modified=port.artifact.modified,
        device=getattr(session, "device", ""),
        config=getattr(session, "config", {}),
    )


def _original(port: Subject, scratch: Path) -> Contender:
    """The original as another process can load it: from where it came, or from its own `save_pretrained`."""
    manifest = port.manifest
    source = manifest.source
    if source.kind == "module":
        # Nothing is pickled: a module of another kind would have to be, or to be forked with its threads.
        save = None
        with contextlib.suppress(OriginalMissing):
            save = getattr(port.original(), "save_pretrained", None)
        if save is None:
            raise ValueError(
                "no baseline: the original was a module in memory, which another process cannot load. Port it "
                "from a hub id or a directory, or time it in a process of its own."
            )
        save(scratch)
        source = Source("directory", id=str(scratch), model_class=source.model_class)
    dtype = about(manifest.engine).capture_dtype(manifest.dtype) or ""
    return Contender("torch eager", source=source, dtype=dtype, constants=manifest.constants)


# --- a race ------------------------------------------------------------------------------------


def race(
    contenders: Sequence[Contender],
    feed: Mapping[str, np.ndarray],
    seconds: float = 10.0,
    *,
    subject: str = "",
    rounds: int = 10,
    cores: int = 0,
    progress: Progress | None = None,
) -> BenchReport:
    """Time `contenders` on the same feed, in turns of seconds / rounds each. The first one is the baseline.

    Every turn begins with a call that does not count. Faults of contenders are in the report.
    """
    tell = progress or (lambda what: None)
    used = _cores(cores)
    found: list[Timing] = []
    noise: list[tuple[float, float]] = []
    with leftovers.temporary() as scratch, contextlib.ExitStack() as stack:
        np.savez(Path(scratch, "feed.npz"), **feed)
        running: list[_Child] = []
        for contender in contenders:  # one after the other, so that loading is not disturbed either
            tell(f"loading {contender.name}")
            running.append(stack.enter_context(_Child(contender, Path(scratch, "feed.npz"), used)))
            running[-1].load()
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}")
            for child in running:
                before = _busy()
                if (spent := child.play(seconds / rounds)) is not None:
                    noise.append(_foreign(before, spent))
        found = [child.finish() for child in running]
    baseline = found[0] if found and found[0].calls and len(found) > 1 else None
    return BenchReport(
        subject=subject,
        timings=tuple(
            dataclasses.replace(t, ratio=baseline.median / t.median) if baseline and t.calls else t for t in found
        ),
        machine=describe_machine(),
        cores=len(used),
        versions=_versions(found),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        noise=sum(n for n, _ in noise) / max(sum(total for _, total in noise), 1e-9),
    )


class _Child:
    """One contender's process: started, asked, and stopped. A failure is kept, not raised."""

    def __init__(self, contender: Contender, feed: Path, cores: Sequence[int]):
        self.timing = Timing(contender.name)
        self._rounds: list[tuple[float, ...]] = []
        self._processor: list[float] = []  # seconds per call, by round
        self._order = {**dataclasses.asdict(contender), "feed": str(feed), "cores": list(cores)}
        limits = Limits(seconds=PATIENCE, gib=math.inf)
        environment = {"OMP_NUM_THREADS": str(len(cores)), "TOKENIZERS_PARALLELISM": "false"}
        self._worker = Worker("paritas.bench.contender", limits, environment, listens=True)

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.end()

    def load(self) -> None:
        if (answer := self._ask({**self._order, "started": time.monotonic()})) is not None:
            self.timing = dataclasses.replace(self.timing, **answer, process=self._worker.pid or 0)

    def play(self, seconds: float) -> float | None:
        """One turn. Returns the processor time that it took, None where the contender has failed."""
        answer = self._ask({"seconds": seconds})
        if answer is None:
            return None
        self._rounds.append(tuple(answer["calls"]))
        self._processor.append(answer["spent"] / (len(answer["calls"]) + 1))
        return float(answer["spent"])

    def finish(self) -> Timing:
        answer = self._ask({"finish": True})
        if answer is None or not self._rounds:
            return self.timing
        processor = statistics.median(self._processor)
        return dataclasses.replace(self.timing, **answer, rounds=tuple(self._rounds), processor=processor)

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        if self.timing.fault:
            return None
        try:
            self._worker.tell(question)
            answer = self._worker.answer()
        except (OSError, ValueError) as error:
            answer = str(error)
        if isinstance(answer, str):
            answer = {"fault": answer}
        if fault := answer.get("fault"):
            self.timing = dataclasses.replace(self.timing, fault=fault)
            return None
        return answer


# --- the machine -------------------------------------------------------------------------------


def _cores(wanted: int) -> list[int]:
    try:
        able = sorted(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        able = list(range(os.cpu_count() or 1))
    return able[:wanted] if wanted else able


def _busy() -> tuple[float, float]:
    """Processor seconds that anyone has used, and that there have been, since the start of the machine."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(value) for value in file.readline().split()[1:9]]
    except OSError:
        return 0.0, 0.0
    tick = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / tick, sum(ticks) / tick


def _foreign(before: tuple[float, float], spent: float) -> tuple[float, float]:
    """Of the processor seconds since `before`: those that neither idled nor were `spent`, and all of them."""
    busy, total = (now - then for now, then in zip(_busy(), before, strict=True))
    return max(busy - spent, 0.0), total


def describe_machine() -> str:
    """Processor, cores, and the instructions that decide how fast matrix products are."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
                break
    able = [word for word in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile") if word in flags]
    return f"{name}, {os.cpu_count()} cores" + (f" ({' '.join(able)})" if able else "")


def _versions(timings: Iterable[Timing]) -> dict[str, str]:
    found = dict(timing.version.split(" ", 1) for timing in timings if timing.version)
    return {**found, "python": platform.python_version()}
