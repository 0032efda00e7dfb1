# SPDX-License-Identifier: Apache-2.0
"""The figures of benchmarks/results as tables in Markdown, by the names of their files: for docs/benchmarks.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from results import FOLDER

from models import MODELS
from paritas.run.engine import about

#: How the engines' columns are called.
TITLES = {
    "torch eager": "PyTorch eager",
    "mindspore graph": "MindSpore Graph",
    "mindspore pynative": "MindSpore PyNative",
    "openvino": "OpenVINO",
    "openvino float32": "OpenVINO fp32",
    "openvino bfloat16": "OpenVINO bf16",
    "openvino int8": 'OpenVINO fp32, `weights="int8"`',
    "openvino bf16 int8": 'OpenVINO bf16, `weights="int8"`',
    "openvino bf16 int4": 'OpenVINO bf16, `weights="int4"`',
}


def shown(name: str) -> str:
    """The table of one benchmark, and the machine, date and versions of its figures.

    Raises `KeyError` for one that is none.
    """
    table = _TABLES[name]
    path = FOLDER / f"{name}.json"
    if not path.exists():
        return "*Not measured yet.*"
    data = json.loads(path.read_text(encoding="utf-8"))
    return f"{table(data)}\n\n{_measured(data)}"


def _measured(data: Mapping[str, Any]) -> str:
    wanted = ("torch", "transformers", "mindspore", "openvino")
    versions = ", ".join(
        f"{name} {data['versions'][name].partition('+')[0]}" for name in wanted if name in data["versions"]
    )
    return f"*{data['machine']}; {data['date']}; {versions}*"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _parity(data: Mapping[str, Any]) -> str:
    engines = ("mindspore graph", "mindspore pynative", "openvino")
    rows = []
    for name, row in data["errors"].items():
        cells = [f"{row['eager'][engine]:.1e} ({row['float64'][engine]:.1e})" for engine in engines]
        rows.append([MODELS[name].title, *cells, f"({row['float64']['eager']:.1e})"])
    return _table(["model", *map(TITLES.__getitem__, engines), "PyTorch itself, to float64"], rows)


def _convolution(data: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            *(f"{row[who]:.1f} ms" for who in ("torch", "mindspore")),
            *(f"{row[key]:.2f}" for key in ("ratio", "best")),
        ]
        for name, row in data["cases"].items()
    ]
    return _table(["convolution", "PyTorch", "MindSpore", "ratio", "of the fastest calls"], rows)


def _compile_time(data: Mapping[str, Any]) -> str:
    return _table(["layers", "first call"], [[str(row["layers"]), f"{row['seconds']:.1f} s"] for row in data["rows"]])


def _in_turns(data: Mapping[str, Any]) -> str:
    """What `turns.compared` found: of generation and of transcription."""
    new = data["new"]
    rows = [
        [
            TITLES[name],
            f"{row['seconds']:.2f} s",
            f"{row['first']:.2f} s",
            f"{(new - 1) / (row['seconds'] - row['first']):.1f}",
            f"{row['ratio']:.2f}",
            f"{row['same']} of {new}",
            str(len(row["all"])),
        ]
        for name, row in data["contenders"].items()
    ]
    head = ["", "together", "first token", "tokens/s", "ratio", "first tokens as PyTorch's", "turns"]
    return _table(head, rows)


def _speculative(data: Mapping[str, Any]) -> str:
    rows = [
        [
            TITLES[name],
            size,
            f"{row['alone']:.2f} s",
            f"{row['assisted']:.2f} s",
            f"{row['ratio']:.2f}",
            f"{found['same'][0]} of {found['same'][1]}",
            str(len(found["all"])),
        ]
        for name, found in data["contenders"].items()
        for size, row in found["batches"].items()
    ]
    head = ["", "batch", "alone", "assisted", "ratio", "texts with the same tokens", "turns"]
    agreement = f"The two models agree on {data['agreement']:.0%} of the tokens; {data['new']} are generated."
    return f"{_table(head, rows)}\n\n{agreement}"


def _start(data: Mapping[str, Any]) -> str:
    rows = [
        [
            title,
            *(f"{data[key][part]:.1f} s" for part in ("imports", "load", "token")),
            *(f"{data[key][part]:.1f} ms" for part in ("step", "engine")),
        ]
        for title, key in (("the first time, porting it", "first"), ("later, in the median", "later"))
    ]
    head = ["", "imports", "`from_pretrained`", "first token", "a step", "the engine's own call in it"]
    return _table(head, rows)


def _porting(data: Mapping[str, Any]) -> str:
    rows = [
        [
            about(row["engine"]).label,
            f"{row['port']:.1f} s",
            f"{row['first_answer']:.1f} s",
            f"{row['memory'] / 2**30:.2f} GiB",
        ]
        for row in data["costs"]
    ]
    return _table(["", "port all-MiniLM-L6-v2", "load it and answer once", "peak memory, porting BERT-base"], rows)


def _speed(data: Mapping[str, Any]) -> str:
    contenders = list(
        dict.fromkeys(row["name"] for report in data["reports"].values() for row in report["timings"][1:])
    )
    rows = []
    for name, report in data["reports"].items():
        timings = {row["name"]: row for row in report["timings"]}
        eager = report["timings"][0]
        cells = [
            "failed"
            if timings[who]["fault"]
            else f"{eager['median'] / timings[who]['median']:.2f} ({eager['best'] / timings[who]['best']:.2f})"
            for who in contenders
        ]
        rows.append([MODELS[name].title, f"{1000 * eager['median']:.0f} ms", *cells])
    return _table(["model", "PyTorch eager", *(TITLES[who] for who in contenders)], rows)


def _lockstep(data: Mapping[str, Any]) -> str:
    rows = [
        [
            about(row["engine"]).label,
            row["level"],
            f"{statistics.median(row['seconds']):.1f} s",
            f"{row['memory'] / 2**30:.2f} GiB",
            str(row["nodes"]) if row["nodes"] else "",
        ]
        for row in data["rows"]
    ]
    return _table(["", "`--level`", "together", "peak memory", "nodes compared"], rows)


def _large(data: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{row['name']} {row['weights']}",
            *(f"{row[key]:.1f} s" for key in ("port", "answer", "all")),
            f"{row['peak']:.2f} GiB",
            f"{1e3 * row['step']:.0f} ms",
            f"{row['of_reading']:.2f}",
        ]
        for row in data["rows"]
    ]
    return _table(["", "port", "first answer", "together", "peak memory", "a step", "of reading its weights"], rows)


def _peers(data: Mapping[str, Any]) -> str:
    rows = [
        [
            form,
            name,
            f"{row['seconds']:.2f} s",
            f"{row['first']:.2f} s",
            f"{row['ratio']:.2f}",
            f"{row['now']:.0f} MB",
            f"{row['same']} of {data['new']}",
        ]
        for form, contenders in data["formats"].items()
        for name, row in contenders.items()
    ]
    return _table(["", "", "together", "first token", "ratio", "memory", "first tokens as Paritas'"], rows)


def _denoising(data: Mapping[str, Any]) -> str:
    """What `benchmarks/denoising.py` writes: per pipeline, the steps of each contender."""
    rows = [
        [
            one["title"], name, f"{row['step']:.2f} s", f"{row['ratio']:.2f}", f"{row['outside']:.1%}",
            f"{row['peak']:.1f} GiB", f"{row['error']:.1e}",
        ]
        for one in data["subjects"].values()
        for name, row in one["rows"].items()
    ]  # fmt: skip
    return _table(["pipeline", "", "a step", "ratio", "outside the network", "peak", "error of the latents"], rows)


def _overhead(data: Mapping[str, Any]) -> str:
    rows = [
        f"| {name} | {row['modules']} | {row['engine'] / 1000:.2f} ms | {row['ours'] / 1000:.2f} ms | "
        f"{row['beside'] / 1000:.2f} ms |"
        for name, row in data["rows"].items()
    ]
    head = ["| UNet | modules | the engine's own call | the pipeline's call | beside |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


def _drawing(data: Mapping[str, Any]) -> str:
    kinds = list(next(iter(data["rows"].values()))["wrong"])
    rows = [
        [
            what,
            f"{row['right']} of {row['count']} = {100 * row['right'] / row['count']:.1f} %",
            *(str(row["wrong"][kind]) for kind in kinds),
        ]
        for what, row in data["rows"].items()
    ]
    return _table(["pictures of", "right", *(f"wrong {kind}" for kind in kinds)], rows)


def _vectors(data: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{int(size):,}",
            f"{row['recall']:.4f}",
            f"{row['p50_ms']:.2f} ms",
            f"{row['p99_ms']:.2f} ms",
            f"{row['peak'] / 1e6:.0f} MB",
            f"{row['open']:.2f} s",
            f"{row['bytes'] / 1e6:,.0f} MB",
            f"{row['build seconds']:,.0f} s",
        ]
        for size, row in data["rows"].items()
    ]
    head = ["vectors", "recall@10", "a query", "one in a hundred", "memory", "opened in", "on disk", "made in"]
    return _table(head, rows)


def _encoding(data: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            f"{row['rate']:.0f}",
            f"{row['ratio']:.2f}",
            f"{row['largest']:.1e}",
            f"{row['cosine']:.6f}",
            f"{row['peak'] / 1e6:.0f} MB",
        ]
        for name, row in data["rows"].items()
    ]
    head = ["", "verses a second", "times PyTorch", "largest difference", "least cosine", "memory"]
    return _table(head, rows)


def _playlist(data: Mapping[str, Any]) -> str:
    rows = [
        ["from the command to nine songs, nothing kept", f"{data['first']:.1f} s"],
        ["the same, later", f"{data['later']:.1f} s"],
        [f"a query, in the middle of {data['queries']}", f"{1e3 * data['query_p50']:.0f} ms"],
        ["the longest of them", f"{1e3 * data['query_worst']:.0f} ms"],
    ]
    return _table([about(data["engine"]).label, "in Chromium"], rows)


def _reinforcement(data: Mapping[str, Any]) -> str:
    kinds: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for run in data["runs"]:
        if run["kind"] == "train":
            kinds.setdefault((run["env"], run["algorithm"], run["engine"]), []).append(run)
    rows = []
    for (env, algorithm, engine), runs in sorted(kinds.items()):
        runs.sort(key=lambda run: run["seed"])
        label = about(engine).label if not runs[0]["peer"] else engine
        seconds = [run["cpu_seconds"] for run in runs]
        returns = ", ".join(f"{run['mean']:.1f}" for run in runs)
        time = f"{min(seconds):.0f}" if len(seconds) == 1 else f"{min(seconds):.0f} to {max(seconds):.0f}"
        rows.append([env, algorithm, label, f"{runs[0]['steps']:,}", returns, time])
    head = ["environment", "", "gradients by", "steps", "return over 100 episodes, seed by seed", "CPU seconds"]
    return _table(head, rows)


_TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "reinforcement": _reinforcement,
    "drawing": _drawing,
    "parity": _parity,
    "convolution": _convolution,
    "denoising": _denoising,
    "compile_time": _compile_time,
    "generation": _in_turns,
    "transcription": _in_turns,
    "speculative": _speculative,
    "start": _start,
    "porting": _porting,
    "speed": _speed,
    "overhead": _overhead,
    "lockstep": _lockstep,
    "large_1.1B": _large,
    "large_3B": _large,
    "large_7B": _large,
    "peers": _peers,
    "vectors": _vectors,
    "vectors_postgres": _vectors,
    "encoding": _encoding,
    "playlist": _playlist,
}
