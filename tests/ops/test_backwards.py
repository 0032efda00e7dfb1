# SPDX-License-Identifier: Apache-2.0
"""The gradient of every lowering on the table's cases: against PyTorch's, both against float64."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from cases import CASES
from making import Case, Given, case, ints, matrix, program_of, tensor, values

from paritas.lower.mindspore.lower import lower
from paritas.options import BuildOptions
from paritas.program import Artifact, Manifest
from paritas.verify.compare import RELATIVE, compare
from paritas.verify.gradients import cotangents_of, gradient_distance

pytest.importorskip("mindspore")

#: Of float32, so many may lie between a gradient and float64, or twice PyTorch's own error.
ROUNDINGS = 32


class Gap(NamedTuple):
    """The cases of `target` whose name contains `part`, and why their gradient is another one than torch's."""

    target: str
    part: str
    reason: str


_TIES = "at the bound itself MindSpore halves the gradient, where torch gives all or nothing"
_NO_KERNEL = "MindSpore 2.10 has no kernel for its gradient on CPU; the engine says so"

GAPS = [
    Gap("aten.cummax.default", "", _NO_KERNEL),
    Gap("aten.cummin.default", "", _NO_KERNEL),
    Gap("aten.logit.default", "1e-07)", _TIES),
    Gap("aten.special_logit.default", "1e-07)", _TIES),
    Gap("aten.index_reduce.default", "prod", "a product's gradient takes one of several equal indices"),
    Gap(
        "aten.mse_loss.default",
        "float32[3,4],float32[4]",
        "torch divides the target's gradient by its own size where the two are broadcast",
    ),
    Gap("aten.lgamma.default", "", "digamma is off by 7e-6 near large arguments"),
    Gap("aten.binary_cross_entropy.default", "0.0", "torch clamps the divisor at probabilities of 0 and 1"),
    Gap("aten.selu.default", ":-0.0", _TIES),
]

#: Where the place matters: at 0, and from the end. In both modes.
PLACES = [
    case("aten.relu.default", values([0.0, -1.0, 2.0, -0.0])),
    case("aten.embedding.default", matrix(4, 3), values([[1, 0, 3], [0, 2, 0]], "int64"), 0),
    case("aten.embedding.default", matrix(4, 3), values([1, 0, 3], "int64"), 3),
    case("aten.index.Tensor", matrix(4, 3), [values([-1, 0, -1, 2], "int64")]),
    case("aten.index.Tensor", tensor(2, 4, 3), [None, None, values([2, -3], "int64")]),
    case("aten.take.default", matrix(3, 4), values([[0, -1], [5, 11]], "int64")),
    case("aten.gather.default", matrix(3, 4), 1, ints(3, 2, low=0, high=4)),
]


def _ordinary(one: Case) -> bool:
    """float32, and no NaN or infinity, at which no derivative means anything."""
    tensors = [leaf for leaf in one.leaves if isinstance(leaf, Given)]
    floats = [leaf for leaf in tensors if leaf.dtype.startswith(("float", "bfloat", "complex"))]
    if not floats or any(leaf.dtype != "float32" for leaf in floats):
        return False
    return all(bool(torch.isfinite(value).all()) for value in one.tensors() if value.is_floating_point())


def _torch(one: Case, dtype: torch.dtype, cotangents: Any) -> dict[str, np.ndarray | None]:
    """Raises RuntimeError for what torch itself has no derivative of."""
    tensors = [t.to(dtype).requires_grad_() if t.is_floating_point() else t for t in one.tensors()]
    args, kwargs = one.fill(tensors, lambda s: tensors[s.argument].shape[s.dim] + s.plus)
    out = one.overload(*args, **kwargs)
    outputs = list(out) if isinstance(out, (tuple, list)) else [out]
    terms = [
        (value, torch.from_numpy(np.array(cotangent)).to(value.dtype))
        for value, cotangent in zip(outputs, cotangents, strict=True)
        if cotangent is not None and value.requires_grad
    ]
    by = {f"x{i}": t for i, t in enumerate(tensors) if t.requires_grad}
    if not terms:
        return dict.fromkeys(by)
    found = torch.autograd.grad([v for v, _ in terms], list(by.values()), [c for _, c in terms], allow_unused=True)
    return {name: None if v is None else v.numpy() for name, v in zip(by, found, strict=True)}


def failures(one: Case, modes: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with the gradients of this case, in words. Skips what torch does not differentiate."""
    from paritas.run.mindspore.adapter import MindSpore

    cotangents = cotangents_of([v.detach().resolve_conj().numpy() for v in one.eager(one.tensors())], 0)
    try:
        want = _torch(one, torch.float32, cotangents)
        exact = _torch(one, torch.float64, cotangents)
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"torch: {str(error).splitlines()[0]}")
    program = program_of(one)
    with tempfile.TemporaryDirectory() as directory:
        lowered = lower(program, Path(directory), BuildOptions("mindspore"))
        manifest = Manifest(
            engine="mindspore", dtype="float32", inputs=program.inputs, outputs=program.outputs, structure={},
            source=program.source, entry=lowered.entry, settings=lowered.settings,
        )  # fmt: skip
        session = MindSpore().load(Artifact(Path(directory), manifest))
        for mode in modes:
            session.mode = mode
            got = session.gradients(
                {f"x{i}": value.numpy() for i, value in enumerate(one.tensors())}, cotangents
            ).inputs
            for name, value in want.items():
                if wrong := _wrong(value, exact[name], got.get(name)):
                    yield f"{mode}, {name}: {wrong}"
        session.close()


def _wrong(want: np.ndarray | None, exact: np.ndarray | None, got: np.ndarray | None) -> str:
    if want is None or exact is None:
        return "" if got is None or not got.any() else "a gradient where torch has none"
    if got is None:
        return "no gradient" if want.any() else ""
    found = compare(want, got, RELATIVE)
    if found.fault:
        return found.fault
    allowed = max(2 * gradient_distance(exact, want), ROUNDINGS * 2.0**-23)
    ours = gradient_distance(exact, got)
    return "" if ours <= allowed else f"{ours:.2e} from float64, {allowed:.2e} is allowed ({found})"


@pytest.mark.parametrize("one", PLACES, ids=str)
def test_where_the_place_matters(one: Case) -> None:
    wrong = list(failures(one, ("pynative", "graph")))
    assert not wrong, f"{one}\n" + "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("one", [one for one in CASES if _ordinary(one)], ids=str)
def test_every_gradient_is_torchs(one: Case) -> None:
    gap = next((gap for gap in GAPS if gap.target == one.target and gap.part in str(one)), None)
    try:
        wrong = list(failures(one, ("pynative",)))
    except Exception as error:
        if gap is None:
            raise
        wrong = [str(error)]
    if gap is not None:
        assert gap.reason.strip()
        return
    assert not wrong, f"{one}\n" + "\n".join(wrong)


def test_a_wrong_gradient_is_found() -> None:
    want = np.array([1.0, 2.0], np.float32)
    exact = want.astype(np.float64)
    assert _wrong(want, exact, want) == ""
    assert "float64" in _wrong(want, exact, want * np.float32(1.0001))
    assert "NaN" in _wrong(want, exact, np.array([math.nan, 2.0], np.float32))
    assert _wrong(want, exact, None) == "no gradient"
    assert _wrong(None, None, want) == "a gradient where torch has none"
