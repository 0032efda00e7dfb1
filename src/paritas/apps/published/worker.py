# SPDX-License-Identifier: Apache-2.0
"""One worker of `paritas parity`: one model with weights of one dtype, its outputs in each column into a file.

Told {"entry": {..}, "weights": "float32", "columns": ["mindspore graph float32", ..], "folder": ..} on stdin. Before
each column it answers {"begun": column}, then {"column": column, "made": true} with `<column>.npz` written, or
"failed" with the reason; at the end {"done": {"gib": ..}}. {"digest": ..} says what the weights are: that all workers
of a model have made the same ones. Engines run after the original is gone, so that a model is in memory once.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import hashlib
import resource
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paritas import leftovers, workers
from paritas.errors import first_lines

if TYPE_CHECKING:
    import torch

    from paritas.program import Artifact, Program

Answer = Callable[[dict[str, Any]], None]
Outputs = Sequence[np.ndarray]

#: The columns of the original in PyTorch are "torch <dtype>", those of its graph in float64 "truth <dtype>".
EAGER, TRUTH = "torch", "truth"


def main() -> None:
    import torch

    from paritas.mending import mend_torchvision

    torch.set_num_threads(1)
    mend_torchvision()
    workers.serve(examine)


def examine(task: Mapping[str, Any], answer: Answer) -> None:
    """All columns of the task. What goes wrong with one is its answer, and the others go on."""
    columns: list[str] = list(task["columns"])

    def column(name: str, compute: Callable[[], Outputs]) -> None:
        answer({"begun": name})
        try:
            arrays = {f"{number:03}": array for number, array in enumerate(compute())}
            np.savez(Path(task["folder"], f"{name}.npz"), **arrays)
        except Exception as error:  # noqa: BLE001 - every failure is an answer
            answer({"column": name, "failed": f"{type(error).__name__}: {first_lines(error, 3)}"})
        else:
            answer({"column": name, "made": True, "gib": _peak()})

    with leftovers.temporary() as place:
        try:
            artifacts, feed = _before(task, columns, Path(place), column, answer)
        except Exception as error:  # noqa: BLE001 - the original cannot be built or captured
            answer({"failed": f"{type(error).__name__}: {first_lines(error, 3)}"})
        else:
            for name in [name for name in columns if name.split()[0] in artifacts]:
                artifact = artifacts[name.split()[0]]
                if isinstance(artifact, str):
                    answer({"column": name, "failed": artifact})
                else:
                    column(name, lambda name=name, artifact=artifact: _ran(artifact, name, feed))  # type: ignore[misc]
    answer({"done": {"gib": _peak()}})


def _before(
    task: Mapping[str, Any],
    columns: Sequence[str],
    place: Path,
    column: Callable[[str, Callable[[], Outputs]], None],
    answer: Answer,
) -> tuple[dict[str, Artifact | str], dict[str, np.ndarray]]:
    """What needs the original: its own answers, the truth, and the port to each engine or why there is none."""
    import torch

    from paritas.apps.zoo import entries
    from paritas.capture import capture
    from paritas.run.torch.session import TorchSession
    from paritas.run.values import to_numpy

    entry, stored = entries.entry_of(task["entry"]), task["weights"]
    answer({"begun": "the original"})
    model = entry.model()
    answer({"digest": digest(model)})
    model = model.to(getattr(torch, stored))
    inputs = _in(entry.values(), stored)
    for name in columns:
        kind, _, dtype = name.partition(" ")
        if kind == EAGER and dtype == stored:
            column(name, lambda: _eager(model, inputs))
        elif kind == EAGER:
            column(name, lambda dtype=dtype: _eager(_twin(model, dtype), _in(inputs, dtype)))  # type: ignore[misc]
    engines = dict.fromkeys(name.split()[0] for name in columns if not name.startswith((f"{EAGER} ", f"{TRUTH} ")))
    if not engines and not any(name.startswith(f"{TRUTH} ") for name in columns):
        return {}, {}
    answer({"begun": "the capture"})
    program = capture(model, inputs)
    # Not the program's examples: a batch of one was made two for the capture, so that it stays free.
    feed = {spec.name: np.array(to_numpy(spec.name, inputs[spec.name])) for spec in program.inputs}
    for name in columns:
        if name.startswith(f"{TRUTH} "):  # each weight is made wider where it is used: never the whole model
            column(name, lambda: TorchSession(program, "float64").run(feed))
    artifacts: dict[str, Artifact | str] = {}
    for engine in engines:
        try:
            artifacts[engine] = _lowered(program, engine, stored, place / engine)
        except Exception as error:  # noqa: BLE001 - every failure is an answer
            artifacts[engine] = f"{type(error).__name__}: {first_lines(error, 3)}"
    return artifacts, feed


def digest(model: torch.nn.Module) -> str:
    """Of a few values of every tensor of the model: enough to see that another process has made others."""
    import torch

    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        some = value.detach().flatten()[:: max(1, value.numel() // 64)].to(torch.float64)
        found.update(name.encode() + some.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _in(inputs: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    import torch

    wanted = getattr(torch, dtype)
    return {
        name: value.to(wanted) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in inputs.items()
    }


def _twin(model: torch.nn.Module, dtype: str) -> torch.nn.Module:
    """A copy in another dtype, whose weights are never there in the model's own a second time."""
    import torch

    wanted = getattr(torch, dtype)
    memo: dict[int, Any] = {
        id(p): torch.nn.Parameter(p.detach().to(wanted), requires_grad=False) for p in model.parameters()
    }
    return copy.deepcopy(model, memo).to(wanted)  # the buffers, which are small


def _eager(model: torch.nn.Module, inputs: Mapping[str, Any]) -> Outputs:
    import torch

    from paritas.pytree import describe_output
    from paritas.run.values import to_numpy

    with torch.no_grad():
        flat, _ = describe_output(model(**inputs))
    return [to_numpy("an output", value) for value in flat]


def _lowered(program: Program, engine: str, dtype: str, directory: Path) -> Artifact:
    from paritas.making import build_options, manifest_of
    from paritas.program import Artifact
    from paritas.run.engine import lower

    directory.mkdir()
    options = dataclasses.replace(build_options(engine)[0], dtype=dtype)
    return Artifact(directory, manifest_of(program, lower(program, directory, options), options))


def _ran(artifact: Artifact, column: str, feed: Mapping[str, np.ndarray]) -> Outputs:
    from paritas.run.engine import engine as find_engine

    gc.collect()  # the original, or the engine's session before
    engine, *mode, dtype = column.split()
    runtime = find_engine(engine)
    session = runtime.load(artifact, mode="".join(mode), precision=dtype)
    try:
        outputs = session.run(feed)
        if session.precision != dtype:
            raise RuntimeError(f"{engine} computed in {session.precision}, not in {dtype}")
    finally:
        session.close()
    return outputs


def _peak() -> float:
    """GiB of resident memory that this process has had at most."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)


if __name__ == "__main__":
    main()
