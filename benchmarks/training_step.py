# SPDX-License-Identifier: Apache-2.0
"""A worker of training_zoo.py: one training step of a zoo's entry, on PyTorch and on MindSpore, and both to float64."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

import paritas
from paritas import workers
from paritas.apps.zoo import entries
from paritas.errors import first_lines

#: The bar: a gradient's largest error over its largest element.
BAR = 1e-5
#: A gradient that is 0 but for rounding is no further off than so much of the largest of all.
ROUNDING = 1e-7
#: And one that rounding changes by more, in PyTorch itself, by no more than so many times as much.
YARDSTICK = 2.0
#: How often PyTorch's step is made again, of weights whose last bit is another.
AGAIN = 2


def main() -> None:
    torch.set_num_threads(1)
    workers.serve(lambda task, answer: answer(examine(entries.entry_of(task["entry"]))))


def examine(entry: Any) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        row = judged(entry)
    except Exception as error:  # noqa: BLE001 - every failure is an answer
        row = {"verdict": "refused", "reason": f"{type(error).__name__}: {first_lines(error, 3)}"}
    gc.collect()
    return {**row, "seconds": round(time.perf_counter() - began, 2)}


def judged(entry: Any) -> dict[str, Any]:
    plain = entry.model().train()
    try:
        want = stepped(plain, entry.values())
    except Exception as error:
        raise RuntimeError(f"PyTorch does not train it: {type(error).__name__}: {error}") from error
    got = stepped(paritas.trainable(copy.deepcopy(plain)), entry.values())
    try:
        wide = {name: _wide(value) for name, value in entry.values().items()}
        exact = stepped(copy.deepcopy(plain).double(), wide)
    except Exception as error:
        raise RuntimeError(f"PyTorch has no float64 of it: {type(error).__name__}: {error}") from error
    others = [stepped(jittered(copy.deepcopy(plain), seed), entry.values()) for seed in range(AGAIN)]
    names = set(got.outputs) & set(want.outputs)
    if missing := sorted(n for n in want.outputs if want.outputs[n].requires_grad and n in names
                         and not got.outputs[n].requires_grad):  # fmt: skip
        return {"verdict": "off", "reason": f"no gradient reaches {', '.join(missing)}"}
    one, other, truth = (losses(run, names) for run in (want, got, exact))
    rows = []
    for run, total in ((want, one), (got, other), (exact, truth), *((run, losses(run, names)) for run in others)):
        total.backward()
        rows.append({name: parameter.grad for name, parameter in run.model.named_parameters()})
    loss = abs(other.item() - truth.item()) / max(abs(truth.item()), 1e-3)
    torchs, ours, float64, *again = rows
    largest = max((g.abs().max().item() for g in float64.values() if g is not None), default=0.0)
    worst, whose, leant = 0.0, "", 0
    for name, true in float64.items():
        if (torchs[name] is None) != (ours[name] is None):
            return {"verdict": "off", "reason": f"{name}: a gradient on one side only"}
        if true is None or ours[name] is None:
            continue
        error = off(ours[name], true)
        if not error <= BAR * true.abs().max().item():
            own = max(off(row[name], true) for row in (torchs, *again))
            if error <= max(YARDSTICK * own, ROUNDING * largest):
                leant += 1
                continue
        if not error / max(true.abs().max().item(), 1e-30) <= worst:
            worst, whose = error / max(true.abs().max().item(), 1e-30), name
    result = {"verdict": "agrees", "gradient": float(f"{worst:.3g}"), "loss": float(f"{loss:.3g}"), "leant": leant}
    if not worst <= BAR:
        result |= {"verdict": "off", "reason": f"the gradient of {whose}: {worst:.2g}"}
    elif not loss <= BAR:
        own = max(abs(losses(run, names).item() - truth.item()) for run in (want, *others))
        if abs(other.item() - truth.item()) > YARDSTICK * own:
            result |= {"verdict": "off", "reason": f"the loss: {loss:.2g}"}
    return result


def off(got: torch.Tensor, true: torch.Tensor) -> float:
    error: float = (got.double() - true).abs().max().item()
    return error


class Run:
    def __init__(self, model: Any, outputs: dict[str, torch.Tensor]) -> None:
        self.model, self.outputs = model, outputs


def stepped(model: Any, inputs: dict[str, Any]) -> Run:
    """The forward of a step, dropout and all."""
    torch.manual_seed(5)
    return Run(model, dict(floats(model(**inputs))))


def losses(run: Run, names: set[str]) -> torch.Tensor:
    """A random combination of what is returned: no entry has labels, and every output counts."""
    generator = torch.Generator().manual_seed(1)
    total = torch.zeros((), dtype=torch.float64)
    for name in sorted(names):
        value = run.outputs[name]
        if value.requires_grad:
            weight = torch.randn(value.shape, generator=generator).to(value.dtype)
            total = total + (value * weight).double().sum() / value.numel()
    return total


def jittered(model: Any, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                sign = torch.randint(0, 2, parameter.shape, generator=generator) * 2 - 1
                parameter.mul_(1 + sign * 2.0**-24)
    return model


def floats(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from floats(inner, f"{path}.{key}")
    elif isinstance(value, (tuple, list)):
        for index, inner in enumerate(value):
            yield from floats(inner, f"{path}.{index}")


def _wide(value: Any) -> Any:
    wider: Callable[[Any], Any] = _wide
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: wider(inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(wider(inner) for inner in value)
    return value


if __name__ == "__main__":
    main()
