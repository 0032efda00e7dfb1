# SPDX-License-Identifier: Apache-2.0
"""Does every pipeline of diffusers make the same picture on an engine as in PyTorch, from the same seed?

    python benchmarks/pipelines.py DATA --engine openvino --out results.jsonl [--only NAME ...] [--perturb] [--publish]

DATA: a directory with `pipelines.json`, tiny random pipelines as data, and the `build_pipeline.py` that builds and runs
them. One line of JSON per pipeline, written as it ends: what has one is not run again, so that a sweep goes on where it
was interrupted. Each runs in a process of its own, and seconds are the processor's. `--perturb` changes the weights of
one network after another by 1 % and asks whether the picture changes as PyTorch's does (`perturbation.py`): a network
that was bypassed would be found. `--publish` writes what is known by then to benchmarks/results, for the documentation.
"""

from __future__ import annotations

import argparse
import collections
import copy
import functools
import importlib
import importlib.util
import json
import logging
import os
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import forked
import results as published
from perturbation import apart, distance, perturbed

from paritas.mending import mend_torchvision

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
    parser.add_argument("--seconds", type=int, default=300, help="of the processor, for one pipeline")
    parser.add_argument("--perturb", action="store_true")
    parser.add_argument("--publish", action="store_true")
    given = parser.parse_args()
    entries = json.loads((given.data / "pipelines.json").read_text())
    done = {name for name, row in results(given.out).items() if row["state"] not in given.again}
    chosen = [e for e in entries if e["pipeline"] not in done and (not given.only or e["pipeline"] in given.only)]
    _prepared(given.data)
    with given.out.open("a") as out:
        order = {name: place for place, name in enumerate(given.only)}
        chosen.sort(key=lambda one: (order.get(one["pipeline"], 0), one["seconds"]))
        rows = forked.each(chosen, functools.partial(_answered, given=given), given.seconds)
        for number, (entry, row) in enumerate(rows):
            row = {"pipeline": entry["pipeline"], "engine": given.engine, "mode": given.mode, **row}
            out.write(json.dumps(row) + "\n")
            out.flush()
            print(f"{number + 1}/{len(chosen)} {row['pipeline']}: {row['state']} {row.get('error', '')}", flush=True)
    found = results(given.out)
    if given.publish:
        name = "_".join(filter(None, ("pipelines", given.engine, given.mode)))
        rows = [_in_short(found[e["pipeline"]]) for e in entries if e["pipeline"] in found]
        published.write(name, {"rows": sorted(rows, key=lambda row: str(row["pipeline"]))})
    counted = collections.Counter(row["state"] for row in found.values())
    print(", ".join(f"{count} {state}" for state, count in counted.most_common()))


def results(out: Path) -> dict[str, dict[str, Any]]:
    """Of each pipeline, what was found last."""
    if not out.exists():
        return {}
    return {row["pipeline"]: row for row in map(json.loads, out.read_text().splitlines())}


def _in_short(row: dict[str, Any]) -> dict[str, Any]:
    """What the documentation says of a pipeline. seconds: until the first picture, porting included. note: what was
    computed otherwise than as one graph for each network, or why there is no picture. perturbed: by network, what
    `perturbation.perturbed` says; None where it was not asked."""
    notes = [note.partition("\n")[0] for note in row.get("notes", ())]
    return {
        "pipeline": row["pipeline"],
        "engine": row["engine"],
        "mode": row.get("mode", ""),
        "agrees": row["state"] == "agrees",
        "error": row.get("error"),
        "levels": row.get("levels"),
        "seconds": round(row["first_seconds"], 1) if "first_seconds" in row else None,
        "perturbed": row.get("perturbed"),
        "note": "; ".join(filter(None, (row.get("why", "") if row["state"] != "agrees" else "", *notes))),
    }


def _prepared(data: Path) -> None:
    """Import once what every process needs."""
    warnings.filterwarnings("ignore")
    sys.path.insert(0, str(data))
    mend_torchvision()
    for name in ("torch", "transformers", "diffusers", "build_pipeline", "paritas.diffusers.porting"):
        importlib.import_module(name)
    for name in ("transformers", "diffusers"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _answered(entry: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
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
    return found


def compare(entry: dict[str, Any], engine: str, mode: str = "", perturb: bool = False) -> dict[str, Any]:
    """A row: whether the pipeline's outputs are PyTorch's, and which of its networks the engine did not compute."""
    import build_pipeline

    from paritas.diffusers import port
    from paritas.diffusers.porting import networks

    started = time.process_time()
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
    middle = time.process_time()
    ported = port(build_pipeline.build(entry), engine=engine, **({"mode": mode} if mode else {}))
    got = build_pipeline.run(entry, ported)
    first = time.process_time()
    again = build_pipeline.run(entry, ported)
    last = time.process_time()
    error, levels, wrong = difference(want, got)
    told = ""
    if wrong and error and not levels > LEVELS:
        wrong, told = by_truth(entry, want, got, ported, wrong)
    found: dict[str, Any] = {
        "state": "differs" if wrong else "agrees",
        "error": error,
        "levels": levels,
        "again": difference(got, again)[0],
        "torch_seconds": middle - started,
        "first_seconds": first - middle,
        "second_seconds": last - first,
        "ports": {name: len(getattr(module, "ports", ())) for name, module in networks(ported).items()},
        "notes": [note[:400] for note in dict.fromkeys([*filter(None, [told]), *notes])],
    }
    if wrong:
        found["why"] = wrong
    if perturb:
        runs = [functools.partial(build_pipeline.run, entry, pipeline) for pipeline in (original, ported)]
        started = time.process_time()
        found["perturbed"] = perturbed(networks(original), networks(ported), *runs, want)
        found["perturbed_seconds"] = time.process_time() - started
        if missed := [_missed(name, one) for name, one in found["perturbed"].items() if one["state"] == "missed"]:
            found |= {"state": "bypassed", "why": "; ".join([*filter(None, [wrong]), *missed])}
    return found


def _missed(name: str, one: dict[str, Any]) -> str:
    moved = f"PyTorch's outputs move by {one['moved']:.3g}, and the port's are then {one['off']:.3g} off"
    return f"{name}: changed by {one['by']:.0%}, {moved}"


def difference(want: dict[str, Any], got: dict[str, Any]) -> tuple[float, float, str]:
    """The largest difference of numbers relative to values over 1, that of pictures in levels, and what is wrong."""
    error, levels, wrong = apart(want, got)
    if error > TOLERANCE or levels > LEVELS:
        wrong = wrong or f"off by {error:.3g}, {levels:g} levels"
    return error, levels, wrong


def by_truth(
    entry: dict[str, Any], want: dict[str, Any], got: dict[str, Any], ported: Any, wrong: str
) -> tuple[str, str]:
    """(what is wrong, what is to be told) of outputs that are not quite PyTorch's.

    Nothing is wrong where PyTorch is the inaccurate one: with its networks computed in float64, all else as it is, the
    port's outputs are within the tolerance, and nearer than PyTorch's in float32. What is wrong is told with what
    rounding does to the same pipeline in PyTorch, and how exact each call of its networks is by itself.
    """
    import build_pipeline

    calls: list[_Call] = []
    truth = _truth(entry, calls)
    theirs, ours = difference(truth, want)[0], difference(truth, got)
    told = (
        f"with networks in float64 the outputs are {theirs:.3g} from PyTorch's in float32, and {ours[0]:.3g} from these"
    )
    if not ours[2] and ours[0] < theirs:
        return "", told
    exact = [_inexactness(calls, pipeline) for pipeline in (build_pipeline.build(entry), ported)]
    by_itself = (
        f"PyTorch's own move by {by_rounding(entry, want):.3g} where the last bit of weights is changed; each of "
        f"{len(calls)} calls of networks, on the same inputs, is within {exact[1]:.2g} of float64, PyTorch's within "
        f"{exact[0]:.2g}"
    )
    return f"{wrong}; {told}; {by_itself}", ""


def by_rounding(entry: dict[str, Any], want: dict[str, Any], times: int = 3) -> float:
    """How far PyTorch's own outputs move, at most, where weights are rounded otherwise in their last bit."""
    import build_pipeline
    import torch

    from paritas.diffusers.porting import networks

    moved = []
    for seed in range(times):
        pipeline, generator = build_pipeline.build(entry), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for network in networks(pipeline).values():
                for weight in filter(torch.is_floating_point, network.parameters()):
                    last = torch.randint(-1, 2, weight.shape, generator=generator) * torch.finfo(weight.dtype).eps
                    weight.mul_(1 + last)
        moved.append(distance(want, build_pipeline.run(entry, pipeline)))
    return max(moved)


#: (network, method, arguments, keywords, answer) of a run.
_Call = tuple[str, str, tuple[Any, ...], dict[str, Any], Any]


def _inexactness(calls: list[_Call], pipeline: Any) -> float:
    """How far the answers to these calls are from those, at most, each relative to values over 1."""
    import torch
    from build_pipeline import arrays

    from paritas.diffusers.porting import networks

    found, off = networks(pipeline), 0.0
    for network, method, args, kwargs, answer in calls:
        with torch.no_grad():
            got = getattr(found[network], method)(*copy.deepcopy(args), **copy.deepcopy(kwargs))
        leaves = [[arrays(one) for one in _tensors(each)] for each in (answer, got)]
        off = max(off, *(distance({"": a}, {"": b}) for a, b in zip(*leaves, strict=True)))
    return off


def _tensors(value: Any) -> list[Any]:
    """Those in what a network returns, a distribution's too."""
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [one for inner in value for one in _tensors(inner)]
    inside = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    return [one for inner in inside.values() for one in _tensors(inner)]


def _truth(entry: dict[str, Any], calls: list[_Call]) -> dict[str, Any]:
    """PyTorch's outputs where a copy of each network in float64 answers in float32. calls: gets what was asked."""
    import build_pipeline
    import torch

    from paritas.diffusers.porting import networks
    from paritas.diffusers.runs import computed_in

    def recorded(own: Any, network: str, name: str) -> Any:
        @functools.wraps(own)
        def called(*args: Any, **kwargs: Any) -> Any:
            asked = copy.deepcopy((args, kwargs))
            answer = own(*args, **kwargs)
            calls.append((network, name, *asked, copy.deepcopy(answer)))
            return answer

        return called

    pipeline = build_pipeline.build(entry)
    found = networks(pipeline)
    with computed_in(found, torch.float64, lambda module, dtype: copy.deepcopy(module).to(dtype)):
        for network, module in found.items():
            for name in ("forward", "encode", "decode"):
                if (own := getattr(module, name, None)) is not None:
                    setattr(module, name, recorded(own, network, name))
        return build_pipeline.run(entry, pipeline)


if __name__ == "__main__":
    main()
