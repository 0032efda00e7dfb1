# SPDX-License-Identifier: Apache-2.0
"""Does every pipeline of diffusers make the same picture on an engine as in PyTorch, from the same seed?

    python benchmarks/pipelines.py DATA --engine openvino --out results.jsonl [--only NAME ...] [--perturb]

DATA: a directory with `pipelines.json`, tiny random pipelines as data, and the `build_pipeline.py` that builds and runs
them. One line of JSON per pipeline, written as it ends: what has one is not run again, so that a sweep goes on where it
was interrupted. Each runs in a process of its own. `--perturb` changes the weights of one network at a time by 1 % and
asks whether the picture changes as PyTorch's does: a network that was bypassed would be found.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import importlib.util
import json
import logging
import multiprocessing
import os
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from paritas.apps.published.open_clip_models import mend_torchvision

#: The largest difference that counts as the same: of values as large as 1, and of pictures of 8 bits in levels.
TOLERANCE, LEVELS = 1e-4, 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--mode", default="")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--again", nargs="*", default=(), help="states of which results are made anew")
    parser.add_argument("--seconds", type=float, default=300.0, help="for one pipeline")
    parser.add_argument("--perturb", action="store_true")
    given = parser.parse_args()
    entries = json.loads((given.data / "pipelines.json").read_text())
    done = {name for name, row in results(given.out).items() if row["state"] not in given.again}
    chosen = [e for e in entries if e["pipeline"] not in done and (not given.only or e["pipeline"] in given.only)]
    _prepared(given.data)
    with given.out.open("a") as out:
        for number, entry in enumerate(sorted(chosen, key=lambda one: one["seconds"])):
            row = _in_a_process(entry, given)
            out.write(json.dumps(row) + "\n")
            out.flush()
            print(f"{number + 1}/{len(chosen)} {row['pipeline']}: {row['state']} {row.get('error', '')}", flush=True)
    counted = collections.Counter(row["state"] for row in results(given.out).values())
    print(", ".join(f"{count} {state}" for state, count in counted.most_common()))


def results(out: Path) -> dict[str, dict[str, Any]]:
    """Of each pipeline, what was found last."""
    if not out.exists():
        return {}
    return {row["pipeline"]: row for row in map(json.loads, out.read_text().splitlines())}


def _prepared(data: Path) -> None:
    """Import once what every process needs."""
    warnings.filterwarnings("ignore")
    sys.path.insert(0, str(data))
    mend_torchvision()
    for name in ("torch", "transformers", "diffusers", "build_pipeline", "paritas.diffusers.porting"):
        importlib.import_module(name)
    for name in ("transformers", "diffusers"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _in_a_process(entry: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_reported, args=(theirs, entry, given))
    process.start()
    theirs.close()
    row: dict[str, Any] = {"pipeline": entry["pipeline"], "engine": given.engine}
    try:
        row |= ours.recv() if ours.poll(given.seconds) else {"state": "too slow", "why": f"over {given.seconds:g} s"}
    except EOFError:
        process.join()
        row |= {"state": "killed", "why": f"exit code {process.exitcode}"}
    process.kill()
    process.join()
    return row


def _reported(pipe: Any, entry: dict[str, Any], given: argparse.Namespace) -> None:
    missing = [
        name for name in entry.get("needs", ()) if importlib.util.find_spec(name.replace("opencv", "cv2")) is None
    ]
    try:
        found = compare(entry, given.engine, given.mode, given.perturb)
    except Exception as error:  # noqa: BLE001 - a pipeline raises anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        found = {"state": "failed", "why": f"{type(error).__name__}: {error} [{where}]"[:1500]}
        if os.environ.get("TRACE"):
            traceback.print_exc()
    if missing and found["state"] in ("failed", "fails in PyTorch"):
        found["state"] = f"needs {', '.join(missing)}"
    pipe.send(found)


def compare(entry: dict[str, Any], engine: str, mode: str = "", perturb: bool = False) -> dict[str, Any]:
    """A row: whether the pipeline's outputs are PyTorch's, and which of its networks the engine did not compute."""
    import build_pipeline

    from paritas.diffusers import port
    from paritas.diffusers.porting import networks

    started = time.perf_counter()
    try:
        original = build_pipeline.build(entry)
        want = build_pipeline.run(entry, original)
    except Exception as error:  # noqa: BLE001 - a pipeline raises anything
        return {"state": "fails in PyTorch", "why": f"{type(error).__name__}: {error}"[:500]}
    notes: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: notes.append(record.getMessage())  # type: ignore[method-assign]
    for name in ("paritas.diffusers", "paritas.dropin", "paritas.transformers"):
        logging.getLogger(name).addHandler(handler)
    middle = time.perf_counter()
    ported = port(build_pipeline.build(entry), engine=engine, **({"mode": mode} if mode else {}))
    got = build_pipeline.run(entry, ported)
    first = time.perf_counter()
    again = build_pipeline.run(entry, ported)
    last = time.perf_counter()
    error, levels, wrong = difference(want, got)
    found: dict[str, Any] = {
        "state": "differs" if wrong else "agrees",
        "error": error,
        "levels": levels,
        "again": difference(got, again)[0],
        "torch_seconds": middle - started,
        "first_seconds": first - middle,
        "second_seconds": last - first,
        "ports": {name: len(getattr(module, "ports", ())) for name, module in networks(ported).items()},
        "notes": [note[:400] for note in dict.fromkeys(notes)],
    }
    if wrong:
        found["why"] = wrong
    if perturb and not wrong:
        found["bypassed"] = bypassed(entry, original, ported, want)
        found["state"] = "bypassed" if found["bypassed"] else "agrees"
    return found


def difference(want: dict[str, Any], got: dict[str, Any]) -> tuple[float, float, str]:
    """The largest difference of numbers relative to values over 1, that of pictures in levels, and what is wrong."""
    error, levels, wrong = 0.0, 0.0, ""
    for name, one in want.items():
        other = got.get(name)
        for index, (a, b) in enumerate(_pairs(one, other)):
            where = f"{name}[{index}]"
            if not isinstance(a, np.ndarray) or a.dtype.kind not in "fiub":
                wrong = wrong or ("" if np.array_equal(a, b) else f"{where} is another")
            elif not isinstance(b, np.ndarray) or a.shape != b.shape or a.dtype != b.dtype:
                wrong = wrong or f"{where} is {getattr(b, 'shape', type(b))}, not {a.shape}"
            else:
                finite = np.isfinite(a) & np.isfinite(b)
                if not np.array_equal(np.isfinite(a), np.isfinite(b)):
                    wrong = wrong or f"{where} is not finite in other places"
                off = np.abs(a.astype("float64") - b.astype("float64"))[finite]
                size = max(1.0, float(np.abs(a[finite].astype("float64")).max(initial=0)))
                if a.dtype.kind == "f":
                    error = max(error, float(off.max(initial=0)) / size)
                else:
                    levels = max(levels, float(off.max(initial=0)))
    if error > TOLERANCE or levels > LEVELS:
        wrong = wrong or f"off by {error:.3g}, {levels:g} levels"
    return error, levels, wrong


def _pairs(a: Any, b: Any) -> list[tuple[Any, Any]]:
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [pair for x, y in zip(a, b, strict=True) for pair in _pairs(x, y)]
    return [(a, b)]


def bypassed(entry: dict[str, Any], original: Any, ported: Any, want: dict[str, Any]) -> list[str]:
    """The networks whose weights, changed by 1 %, change the original's outputs and not the port's in the same way."""
    import build_pipeline

    from paritas.diffusers.porting import networks

    found = []
    theirs, ours = networks(original), networks(ported)
    for name, network in theirs.items():
        for module in (network, ours[name]):
            _change(module, 1.0)
        wanted, got = build_pipeline.run(entry, original), build_pipeline.run(entry, ported)
        moved, stayed = difference(want, wanted), difference(want, got)
        is_used = moved[0] > 10 * TOLERANCE or moved[1] > 10 * LEVELS
        if difference(wanted, got)[2] or (is_used and not stayed[2]):
            found.append(f"{name}: PyTorch's picture moves by {moved[0]:.3g}, the port's by {stayed[0]:.3g}")
        for module in (network, ours[name]):
            _change(module, -1.0)
    return found


def _change(module: Any, sign: float) -> None:
    """Each weight times 1.01 or 0.99, by chance; sign -1 takes it back, up to rounding."""
    import torch

    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = 1 + 0.01 * (torch.rand(parameter.shape, generator=generator).round() * 2 - 1)
            parameter.mul_(noise if sign > 0 else 1 / noise)


if __name__ == "__main__":
    main()
