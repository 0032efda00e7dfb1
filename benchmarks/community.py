# SPDX-License-Identifier: Apache-2.0
"""Does every community pipeline of diffusers' table make the same picture on an engine as in PyTorch?

    python benchmarks/community.py COMMUNITY --engine openvino --out results.jsonl [--only NAME ...] [--mode pynative]
    python benchmarks/community.py COMMUNITY --write results.jsonl ...    # into benchmarks/results/community.json

COMMUNITY: `examples/community` of a checkout of diffusers. Each file is loaded by `custom_pipeline=` on a tiny model of
random weights (`community_recipes.py`), run in PyTorch and ported from the same seed, in a process of its own. One line
of JSON per pipeline, written as it ends: what has one is not run again.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import logging
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import results as folder
from pipelines import difference, results

from paritas.mending import mend_torchvision


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("community", type=Path)
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--mode", default="")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--again", nargs="*", default=(), help="states of which results are made anew")
    parser.add_argument("--seconds", type=float, default=300.0, help="for one pipeline")
    parser.add_argument("--write", type=Path, nargs="*", help="files of results, to benchmarks/results/community.json")
    given = parser.parse_args()
    if given.write:
        print(written(given.write))
        return
    _prepared()
    import community_recipes

    community_recipes.COMMUNITY.append(given.community.resolve())
    done = {name for name, row in results(given.out).items() if row["state"] not in given.again}
    chosen = [n for n in community_recipes.RECIPES if n not in done and (not given.only or n in given.only)]
    with given.out.open("a") as out:
        for number, name in enumerate(chosen):
            row = _in_a_process(name, given)
            out.write(json.dumps(row) + "\n")
            out.flush()
            told = row.get("why", "") if row["state"] != "agrees" else f"{row['error']:.2g}"
            print(f"{number + 1}/{len(chosen)} {name}: {row['state']} {told}", flush=True)


def _prepared() -> None:
    """Import once what every process needs."""
    warnings.filterwarnings("ignore")
    mend_torchvision()
    for name in ("torch", "transformers", "diffusers", "paritas.diffusers.porting", "community_recipes"):
        importlib.import_module(name)
    for name in ("transformers", "diffusers"):
        logging.getLogger(name).setLevel(logging.ERROR)
        importlib.import_module(f"{name}.utils.logging").disable_progress_bar()


def _in_a_process(name: str, given: argparse.Namespace) -> dict[str, Any]:
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_reported, args=(theirs, name, given))
    process.start()
    theirs.close()
    row: dict[str, Any] = {"pipeline": name, "engine": given.engine, "mode": given.mode}
    try:
        row |= ours.recv() if ours.poll(given.seconds) else {"state": "too slow", "why": f"over {given.seconds:g} s"}
    except EOFError:
        process.join()
        row |= {"state": "killed", "why": f"exit code {process.exitcode}"}
    process.kill()
    process.join()
    return row


def _reported(pipe: Any, name: str, given: argparse.Namespace) -> None:
    try:
        found = compare(name, given.community, given.engine, given.mode)
    except Exception as error:  # noqa: BLE001 - a pipeline raises anything
        found = {"state": "failed", "why": _why(error)}
    pipe.send(found)


def _why(error: BaseException) -> str:
    if os.environ.get("TRACE"):
        traceback.print_exception(error)
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if "diffusers_modules" in f.filename or "/community/" in f.filename] or frames[-1:]
    where = f"{Path(theirs[-1].filename).name}:{theirs[-1].lineno}"
    return f"{type(error).__name__}: {error} [{where}]"[:1000]


def compare(name: str, community: Path, engine: str, mode: str = "") -> dict[str, Any]:
    """A row: whether the pipeline's outputs are PyTorch's, and what was said on the way."""
    from community_recipes import RECIPES

    import paritas.diffusers as ours
    from paritas.diffusers.porting import networks

    recipe = RECIPES[name]
    if recipe.hardware:
        return {"state": "hardware", "why": recipe.hardware}
    notes: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: notes.append(record.getMessage())  # type: ignore[method-assign]
    for logger in ("paritas.diffusers", "paritas.dropin", "paritas.transformers"):
        logging.getLogger(logger).addHandler(handler)
    with tempfile.TemporaryDirectory() as place:
        source = community.resolve() / f"{name}.py"
        theirs = loaded(source, Path(place, "torch"), None)
        started = time.perf_counter()
        try:
            want = _called(recipe, theirs, Path(place, "torch"))
        except Exception as error:  # noqa: BLE001 - a pipeline raises anything
            return {"state": "fails in PyTorch", "why": _why(error), "notes": notes}
        middle = time.perf_counter()
        moved, notes[:] = list(dict.fromkeys(notes)), []
        made = loaded(source, Path(place, "port"), engine, **({"mode": mode} if mode else {}))
        got = _called(recipe, made, Path(place, "port"))
        first = time.perf_counter()
        ports = {part: len(getattr(module, "ports", ())) for part, module in networks(made).items()}
    del ours
    error, levels, wrong = difference(want, got)
    spread = max((float(np.std(a.astype("float64"))) for a in _leaves(want)), default=0.0)
    found: dict[str, Any] = {
        "state": "differs" if wrong else "agrees",
        "error": error,
        "levels": levels,
        "spread": spread,
        "torch_seconds": middle - started,
        "first_seconds": first - middle,
        "ports": ports,
        "moved": moved,
        "notes": [note[:400] for note in dict.fromkeys(notes) if note not in moved],
    }
    if wrong:
        found["why"] = wrong
    return found


def loaded(source: Path, folder: Path, engine: str | None, **options: Any) -> Any:
    """The pipeline on a tiny model that is written into the folder: in PyTorch for no engine."""
    import diffusers
    import torch
    from community_recipes import RECIPES

    import paritas.diffusers as ours
    from paritas.diffusers.moved import as_before

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # checkpoints that a file names are looked for here, before a hub is asked
    more = RECIPES[source.stem].model(folder)
    index = json.loads(Path(folder, "model_index.json").read_text(encoding="utf-8"))
    has = {name for name, value in index.items() if isinstance(value, list) and value[0]}
    absent = dict.fromkeys(_OPTIONAL.intersection(_arguments(source)) - has)
    keywords = {**absent, **more, "custom_pipeline": str(source), "trust_remote_code": True}
    if engine is None:
        with as_before():
            made: Any = diffusers.DiffusionPipeline.from_pretrained(folder, **keywords)
    else:
        made = ours.DiffusionPipeline.from_pretrained(folder, **keywords, engine=engine, **options)
    made._engine_of_benchmark = engine
    made.set_progress_bar_config(disable=True)
    return made


#: Components that the tiny models do not have, and that most files insist on being told.
_OPTIONAL = {"safety_checker", "feature_extractor", "image_encoder"}


def _arguments(source: Path) -> list[str]:
    """What the classes of a file are made with."""
    nodes = ast.walk(ast.parse(source.read_text(encoding="utf-8")))
    makers = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    return [argument.arg for maker in makers for argument in maker.args.args]


def _called(recipe: Any, pipe: Any, folder: Path) -> dict[str, Any]:
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return arrays(recipe.call(pipe, folder))


def arrays(out: Any) -> dict[str, Any]:
    """What a pipeline returned, by name, as NumPy arrays and lists of them."""
    items = out if isinstance(out, Mapping) else dict(enumerate(out if isinstance(out, tuple) else (out,)))
    return {str(name): _array(value) for name, value in items.items() if value is not None}


def _array(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_array(one) for one in value]
    if hasattr(value, "detach"):
        return value.detach().float().numpy()
    return np.asarray(value) if hasattr(value, "convert") else value


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return [leaf for one in value for leaf in _leaves(one)]
    return [value] if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" else []


def written(files: list[Path]) -> Path:
    """All rows of some sweeps, by pipeline and engine, as one file of results."""
    rows = [row for file in files for row in results(file).values()]
    return folder.write("community", {"rows": sorted(rows, key=lambda row: (row["pipeline"], row["engine"]))})


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
