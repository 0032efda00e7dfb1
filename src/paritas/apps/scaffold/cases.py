# SPDX-License-Identifier: Apache-2.0
"""Example calls for the table of cases, as source: from PyTorch's own samples, or made of the schema."""

from __future__ import annotations

import importlib
import itertools
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from paritas.dtypes import dtype_name
from paritas.errors import InputError

#: Samples of an operator that are looked at before one is taken.
SAMPLES = 12

#: What a tensor of a sample may have at most to be written down value by value.
WRITTEN = 12


def example_cases(target: str, overload: Any, tests: Path) -> tuple[list[str], set[str]]:
    """Lines for tests/ops, and the names of `making` that they use; each ran in PyTorch.

    The first is a plain call; with a float tensor there is a second one with NaN and infinities. Raises `InputError`
    if no arguments can be made up.
    """
    for arguments in itertools.chain(_sampled(target, tests), _invented(overload)):
        plain = f'case("{target}", {", ".join(arguments)})'
        if not _runs(plain, tests):
            continue
        calls = [plain]
        for number, argument in enumerate(arguments):
            if argument.startswith("tensor(") and "dtype" not in argument:
                edges = [*arguments]
                edges[number] += ".with_(nan, inf, -inf)"
                call = f'case("{target}", {", ".join(edges)})'
                calls += [call] if _runs(call, tests) else []
                break
        names = {name for name in ("tensor", "values", "ints", "nan", "inf", "case", "bools")
                 if any(name in _words(call) for call in calls)}  # fmt: skip
        return calls, names
    raise InputError(
        f"No example arguments for {overload._schema} can be made up. Write its case into tests/ops by hand, then the "
        "function: CONTRIBUTING.md."
    )


def _words(call: str) -> set[str]:
    return set("".join(c if c.isalnum() or c == "_" else " " for c in call).split())


def _helpers(tests: Path, name: str) -> Any:
    """A module of the table's own helpers, which are no part of the package."""
    if str(tests) not in sys.path:
        sys.path.append(str(tests))
    return importlib.import_module(name)


def _runs(call: str, tests: Path) -> bool:
    making = _helpers(tests, "making")
    made = eval(call, vars(making))  # noqa: S307 - a line that this module has just written
    try:
        results = made.eager(made.tensors())
    except Exception:  # noqa: BLE001 - torch refuses arguments with a dozen classes
        return False
    return any(isinstance(value, torch.Tensor) and value.numel() for value in results)


def _sampled(target: str, tests: Path) -> Iterator[list[str]]:
    """The smallest of PyTorch's own samples first, those with a matrix before the others, scalars last."""
    samples = _helpers(tests, "samples")
    name = target.split(".")[1]
    found: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for operator in samples._op_db():
            own = (operator.aten_name, operator.name.replace(".", "_"), operator.name.rpartition(".")[2])
            if name in own:
                dtypes = [d for d in (torch.float32, torch.int64) if d in operator.dtypes][:1]
                for dtype in dtypes:
                    found += samples._of_operator(operator, dtype, {target}, SAMPLES)

    def order(case: Any) -> tuple[bool, bool, int]:
        tensors = [leaf for leaf in case.leaves if hasattr(leaf, "shape")]
        rank = max((len(t.shape) for t in tensors), default=0)
        return rank == 0, rank != 2, sum(t.tensor.numel() for t in tensors)

    for case in sorted(found, key=order):
        arguments = [_written(value) for value in case.args]
        arguments += [f"{name}={_written(value)}" for name, value in case.kwargs.items()]
        if "?" not in "".join(arguments):
            yield arguments


def _written(value: Any) -> str:
    """An argument of a sample as the table spells it; "?" where it cannot."""
    if hasattr(value, "tensor"):
        tensor = value.tensor
        dtype = dtype_name(tensor.dtype)
        if tensor.dtype is torch.float32:
            return f"tensor({', '.join(map(str, tensor.shape))})"
        if tensor.numel() <= WRITTEN:
            return f'values({tensor.tolist()}, "{dtype}")'
        if tensor.dtype is torch.int64:
            low, high = int(tensor.min()), int(tensor.max()) + 1
            return f"ints({', '.join(map(str, tensor.shape))}, low={low}, high={high})"
        return "?"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    return repr(value) if value is None or type(value) in (bool, int, float, str) else "?"


#: An argument's type in a schema -> what may be tried for it.
_GUESSES = {
    "Tensor": ("tensor(3, 4)", "tensor(4)", "tensor(4, 4)", "ints(3, 4, low=1)", "ints(4, low=0, high=3)"),
    "int": ("1", "0", "-1", "2"),
    "float": ("0.5", "2.0"),
    "bool": ("False", "True"),
    "number": ("2", "0.5"),
    "List[int]": ("[1]", "[0, 1]", "[2, 2]"),
    "List[Tensor]": ("[tensor(3, 4), tensor(3, 4)]",),
    "str": ('"mean"', '"none"'),
}


def _invented(overload: Any) -> Iterator[list[str]]:
    """Arguments by their types, of those that have no default, from the likeliest on."""
    wanted = [argument for argument in overload._schema.arguments if not argument.has_default_value()]
    guesses = [_GUESSES.get(str(argument.type)) or ("None",) for argument in wanted]
    for chosen in itertools.islice(itertools.product(*guesses), 400):
        yield [
            f"{argument.name}={text}" if argument.kwarg_only else text
            for argument, text in zip(wanted, chosen, strict=True)
        ]
