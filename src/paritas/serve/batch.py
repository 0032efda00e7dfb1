# SPDX-License-Identifier: Apache-2.0
"""A table of inputs becomes a folder of answers: in parts, each written beside its name and moved there whole.

What a part is made of follows from the plan alone, which lies in the folder. So a run that was killed is begun again by
the same call: parts that are there are passed over, and none is there twice or half.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from paritas import files
from paritas.errors import InputError, ParitasError, first_line
from paritas.extras import require
from paritas.serve import layout as layouts
from paritas.serve.batcher import Batcher
from paritas.serve.model import Servable, Signature, open_servable
from paritas.serve.settings import Batching, Engine, Limits
from paritas.serve.writing import maker
from paritas.store.directory import MANIFEST

PLAN, DONE, LOCK = "plan.json", "done.json", ".lock"

#: Rows of a part.
PART = 1024

#: Called with how many rows are done, and of how many.
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a part follows from. port: of what; its files' checksum. columns: of the table, for the signature's
    inputs. keep: columns that are copied beside the answers. tables: (file, bytes, rows) of the input.
    """

    directory: str
    port: str
    signature: str
    columns: Mapping[str, str]
    keep: tuple[str, ...]
    tables: tuple[tuple[str, int, int], ...]
    part: int = PART
    device: str = ""
    config: Mapping[str, str] = dataclasses.field(default_factory=dict)
    together: int = 32

    @property
    def rows(self) -> int:
        return sum(rows for _, _, rows in self.tables)

    @property
    def parts(self) -> int:
        return -(-self.rows // self.part)

    def identity(self) -> str:
        """What has to be the same for parts to belong together: where things lie, and how fast, may change."""
        told = {
            "port": self.port, "signature": self.signature, "columns": dict(self.columns), "keep": list(self.keep),
            "tables": [[Path(file).name, size, rows] for file, size, rows in self.tables], "part": self.part,
        }  # fmt: skip
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """rows: in the folder now. failed: of these the ones with a reason instead of an answer. passed: were there."""

    rows: int
    failed: int
    parts: int
    passed: int


def name_of(part: int) -> str:
    return f"part-{part:06}.parquet"


# --- before it begins ----------------------------------------------------------------------------------------


def planned(
    directory: str | os.PathLike[str],
    tables: Sequence[str | os.PathLike[str]],
    *,
    signature: str = "",
    columns: Mapping[str, str] | None = None,
    keep: Sequence[str] = (),
    part: int = PART,
    device: str = "",
    config: Mapping[str, str] | None = None,
    together: int = 32,
) -> Plan:
    """The plan of a run. columns: input of the signature -> column, where they are not called alike.

    Raises `InputError` for tables and columns that are not there.
    """
    require("parquet", "paritas batch")
    from pyarrow import ArrowException, parquet

    directory = Path(directory)
    found: list[Path] = []
    for table in map(Path, tables):
        found += sorted(table.glob("*.parquet")) if table.is_dir() else [table]
    if not found:
        raise InputError(f"{', '.join(map(str, tables)) or 'nothing'} holds no table: *.parquet.")
    told: list[tuple[str, int, int]] = []
    names: list[list[str]] = []
    for table in found:
        try:
            about = parquet.read_metadata(table)
        except (ArrowException, OSError) as error:
            raise InputError(f"{table} is no table of Parquet: {first_line(error)}") from error
        told.append((str(table.resolve()), table.stat().st_size, about.num_rows))
        names.append(parquet.read_schema(table).names)
    wanted = {*(columns or {}).values(), *keep}
    for table, has in zip(found, names, strict=True):
        if lost := sorted(wanted - set(has)):
            raise InputError(f"{table} has no column {lost[0]!r}; it has: {', '.join(has)}.")
    manifest = files.text(directory / MANIFEST, 1 << 28) if (directory / MANIFEST).is_file() else ""
    if not manifest:
        raise InputError(f"{directory} is no port: it has no {MANIFEST}.   paritas port MODEL --out DIR")
    return Plan(
        str(directory.resolve()), hashlib.sha256(manifest.encode()).hexdigest(), signature, dict(columns or {}),
        tuple(keep), tuple(told), part, device, dict(config or {}), together,
    )  # fmt: skip


@contextlib.contextmanager
def begun(plan: Plan, out: Path) -> Iterator[list[int]]:
    """The parts that are still to be made, for as long as no other process may write to the folder.

    Raises `InputError` for a folder that holds something else, or is being written.
    """
    import fcntl

    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: --output names a folder.")
    there = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    if there - {LOCK} and PLAN not in there:
        raise InputError(f"{out} holds something else: name a new folder, or one that paritas batch has begun.")
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"Another process is writing to {out}.") from None
        if PLAN in there:
            was = files.parsed(files.text(out / PLAN, 1 << 26))
            if not isinstance(was, dict) or was.get("identity") != plan.identity():
                raise InputError(
                    f"{out} was begun with another port, input, signature or part size: go on with those, or name "
                    "a new folder."
                )
        else:
            _written(out / PLAN, json.dumps({"identity": plan.identity(), **dataclasses.asdict(plan)}, indent=1))
        for left in out.glob(".part-*.tmp"):
            left.unlink()
        yield [part for part in range(plan.parts) if not _is_there(out, plan, part)]


def _is_there(out: Path, plan: Plan, part: int) -> bool:
    """Whether a part is there, and of this plan. Raises `InputError` for a file of that name that is not."""
    place = out / name_of(part)
    if not place.exists():
        return False
    from pyarrow import ArrowException, parquet

    try:
        about = parquet.read_metadata(place)
        told = (about.metadata or {}).get(b"paritas", b"").decode()
        rows = about.num_rows
    except (ArrowException, OSError):
        told, rows = "", -1
    if told != plan.identity() or rows != len(range(*_span(plan, part))):
        raise InputError(f"{place} is none of this run's parts, or was damaged: remove it, and run the same again.")
    return True


def _span(plan: Plan, part: int) -> tuple[int, int]:
    return part * plan.part, min(plan.rows, (part + 1) * plan.part)


# --- a part --------------------------------------------------------------------------------------------------


class Parts:
    """Makes the parts of a plan, with an engine of its own. For one thread."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        engine = Engine(device=plan.device, config=plan.config)
        limits = Limits()
        self.servable = open_servable(
            plan.directory, limits=limits, engine=engine, make=maker(engine, max(64, plan.together))
        )
        try:
            self.signature: Signature = self.servable.signature(plan.signature)
            self.columns = _columns(self.servable, self.signature, plan)
            layout = layouts.declared(self.servable.port, getattr(self.servable.reader, "pad_token", 0))
            self.layout = layouts.measured(layout, self.servable.port, self.servable.compute)
        except BaseException:
            self.servable.close()
            raise

    def make(self, part: int, out: Path) -> tuple[int, int]:
        """Make a part and move it to its place; how many rows it has, and how many of them failed."""
        import pyarrow
        from pyarrow import parquet

        begin, end = _span(self.plan, part)
        table = _rows(self.plan, begin, end, [*self.columns.values(), *self.plan.keep])
        inputs = {name: table[column].to_pylist() for name, column in self.columns.items()}
        answers = asyncio.run(self._answers(inputs, end - begin))
        columns: dict[str, Any] = {"row": pyarrow.array(np.arange(begin, end, dtype=np.int64))}
        columns |= {name: table[name] for name in self.plan.keep}
        for name, info in self.signature.outputs.items():
            columns[name] = _column([None if isinstance(one, str) else one[name] for one in answers], info.dtype)
        errors = [one if isinstance(one, str) else None for one in answers]
        columns["error"] = pyarrow.array(errors, pyarrow.string())
        made = pyarrow.table(columns).replace_schema_metadata({"paritas": self.plan.identity()})
        staging = out / f".{name_of(part)}.{secrets.token_hex(4)}.tmp"
        parquet.write_table(made, staging)
        with staging.open("rb") as file:
            os.fsync(file.fileno())
        staging.replace(out / name_of(part))
        return end - begin, sum(error is not None for error in errors)

    async def _answers(self, inputs: Mapping[str, list[Any]], rows: int) -> list[Any]:
        """For each row its outputs by name, or why there are none: a row that fails is no reason for the others."""
        how = Batching(largest=self.plan.together, wait=0.002)
        with ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="reader") as readers:
            batcher = Batcher(self.servable, how, readers=readers, layout=self.layout)
            places = asyncio.Semaphore(4 * self.plan.together)

            async def one(row: int) -> Any:
                async with places:
                    try:
                        given = {name: _value(column[row], self.signature, name) for name, column in inputs.items()}
                        found = await batcher.submit(self.signature, given)
                    except (ParitasError, ValueError, TypeError) as error:
                        return f"{type(error).__name__}: {error}"
                    return {name: array[0] for name, array in found.items()}

            try:
                return list(await asyncio.gather(*(one(row) for row in range(rows))))
            finally:
                await batcher.close()

    def close(self) -> None:
        self.servable.close()


def _columns(servable: Servable, signature: Signature, plan: Plan) -> dict[str, str]:
    """Input of the signature -> column of the table."""
    from pyarrow import parquet

    there = parquet.read_schema(plan.tables[0][0]).names
    if strange := [name for name in plan.columns if name not in signature.inputs]:
        raise InputError(
            f"{servable.name} has no input {strange[0]!r} in the signature {signature.name}; it has: "
            f"{', '.join(signature.inputs)}."
        )
    found = {name: plan.columns.get(name, name) for name in signature.inputs}
    for name, column in list(found.items()):
        if column not in there:
            if getattr(signature.inputs[name], "optional", False):
                del found[name]
                continue
            raise InputError(
                f"{plan.tables[0][0]} has no column {column!r} for the input of that name; it has: {', '.join(there)}. "
                f"Say which:   --column {name}=COLUMN"
            )
    return found


def _value(value: Any, signature: Signature, name: str) -> np.ndarray:
    """One row of an input, as a request of one row has it."""
    if value is None:
        raise InputError(f"{name} is missing.")
    info = signature.inputs[name]
    if info.dtype == "bytes":
        if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):  # as `datasets` keeps images
            value = value["bytes"]
        found = np.empty(1, object)
        found[0] = value
        return found
    try:
        return np.asarray([value], info.dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{name} is no {info.dtype}: {first_line(error)}") from None


def _rows(plan: Plan, begin: int, end: int, columns: Sequence[str]) -> Any:
    """Rows of the tables, as if they were one; reads the row groups in which they are."""
    import pyarrow
    from pyarrow import parquet

    found, before = [], 0
    for file, _, rows in plan.tables:
        first, last = max(begin, before) - before, min(end, before + rows) - before
        if first < last:
            table = parquet.ParquetFile(file)
            groups: list[int] = []
            offset = at = 0
            for number in range(table.num_row_groups):
                size = table.metadata.row_group(number).num_rows
                if at < last and at + size > first:
                    offset = at if not groups else offset
                    groups.append(number)
                at += size
            read = table.read_row_groups(groups, columns=list(dict.fromkeys(columns)))
            found.append(read.slice(first - offset, last - first))
        before += rows
    return pyarrow.concat_tables(found, promote_options="default")


def _column(values: Sequence[Any], dtype: str) -> Any:
    """Arrays, numbers and texts, None among them, as a column of one type."""
    import pyarrow

    first = next((value for value in values if value is not None), None)
    kind = pyarrow.string() if dtype == "bytes" else pyarrow.from_numpy_dtype(np.dtype(dtype))
    for _ in range(np.ndim(first) if first is not None else 0):
        kind = pyarrow.list_(kind)
    plain = [value.tolist() if isinstance(value, np.ndarray | np.generic) else value for value in values]
    return pyarrow.array(plain, kind)


# --- a run ---------------------------------------------------------------------------------------------------


def run(plan: Plan, out: str | os.PathLike[str], tell: Progress | None = None, *, processes: int = 0) -> Outcome:
    """Make the parts that are not there yet: here, or in so many processes, each with an engine of its own.

    Raises `InputError`, and what opening a port raises.
    """
    out = Path(out)
    with begun(plan, out) as left:
        done = _Told(plan, left, tell)
        if processes > 1 and len(left) > 1:
            import concurrent.futures
            import multiprocessing

            pool = concurrent.futures.ProcessPoolExecutor(
                min(processes, len(left)), multiprocessing.get_context("spawn"), _opened, (plan,)
            )
            try:
                for made in concurrent.futures.as_completed([pool.submit(_made, part, out) for part in left]):
                    done.part(*made.result())
            except concurrent.futures.process.BrokenProcessPool:
                raise InputError(
                    "A process ended before its part was made, for memory perhaps: run the same again, or with fewer "
                    "--processes."
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)
        elif left:
            parts = Parts(plan)
            try:
                for part in left:
                    done.part(*parts.make(part, out))
            finally:
                parts.close()
        return finished(plan, out, len(left))


def finished(plan: Plan, out: Path, made: int) -> Outcome:
    """Count what is in the folder, and say in it that all is. Raises `InputError` where a part is missing."""
    from pyarrow import parquet

    rows = failed = 0
    for part in range(plan.parts):
        if not _is_there(out, plan, part):
            raise InputError(f"{out / name_of(part)} is missing: run the same again.")
        errors = parquet.read_table(out / name_of(part), columns=["error"])["error"]
        rows, failed = rows + len(errors), failed + len(errors) - errors.null_count
    outcome = Outcome(rows, failed, plan.parts, plan.parts - made)
    _written(out / DONE, json.dumps(dataclasses.asdict(outcome), indent=1))
    return outcome


class _Told:
    """Counts rows for whoever shows them."""

    def __init__(self, plan: Plan, left: Sequence[int], tell: Progress | None) -> None:
        self._tell, self._all = tell, plan.rows
        self._done = plan.rows - sum(len(range(*_span(plan, part))) for part in left)
        self.part(0, 0)

    def part(self, rows: int, failed: int) -> None:
        self._done += rows
        if self._tell is not None:
            self._tell(self._done, self._all)


def told(plan: Plan, left: Sequence[int], tell: Progress | None) -> Callable[[int, int], None]:
    """What counts the rows of parts that are made."""
    return _Told(plan, left, tell).part


_parts: list[Parts] = []


def _opened(plan: Plan) -> None:
    _parts.append(Parts(plan))


def _made(part: int, out: Path) -> tuple[int, int]:
    return _parts[0].make(part, out)


def _written(place: Path, text: str) -> None:
    staging = place.with_name(f".{place.name}.tmp")
    staging.write_text(text, encoding="utf-8")
    staging.replace(place)
