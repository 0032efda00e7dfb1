# SPDX-License-Identifier: Apache-2.0
"""What is written in other operators of torch, against the operator itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from paritas.lower.composed import SHARED

nan, inf = float("nan"), float("inf")
_random = torch.Generator().manual_seed(0)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=_random)


def _labels(*shape: int) -> torch.Tensor:
    return torch.stack([torch.randperm(shape[-1], generator=_random) for _ in range(shape[0])])


_CALLS: list[tuple[str, tuple, dict[str, Any]]] = [
    ("bilinear.default", (_normal(2, 5, 3), _normal(2, 5, 4), _normal(6, 3, 4), _normal(6)), {}),
    ("bilinear.default", (_normal(3), _normal(4), _normal(6, 3, 4), None), {}),
    *(("pdist.default", (_normal(5, 3), p), {}) for p in (0.0, 1.0, 2.0, 3.0, inf)),
    ("pdist.default", (_normal(1, 3), 2.0), {}),
    *(
        ("diagonal_scatter.default", (x := _normal(3, 4, 5), _normal(*x.diagonal(o, *d).shape), o, *d), {})
        for o in (-2, 0, 3)
        for d in ((0, 1), (-1, 0), (0, 2))
    ),
    ("put.default", (_normal(3, 4), torch.tensor([[0, 5], [-1, 2]]), _normal(2, 2)), {}),
    ("put.default", (_normal(3, 4), torch.tensor([0, 0, 5]), _normal(3), True), {}),
    *(
        ("mode.default", (torch.randint(0, 3, (4, 6), generator=_random).to(dtype), dim, True), {})
        for dtype in (torch.int64, torch.float32, torch.bool, torch.uint8)
        for dim in (0, -1)
    ),
    ("mode.default", (torch.tensor([3, 1, 3, 1, 2]),), {}),
    ("native_group_norm.default", (_normal(2, 6, 3, 4), _normal(6), _normal(6), 2, 6, 12, 3, 1e-5), {}),
    ("native_group_norm.default", (_normal(2, 6, 3), None, None, 2, 6, 3, 2, 0.5), {}),
    ("logcumsumexp.default", (_normal(4, 7) * 100, 1), {}),
    ("logcumsumexp.default", (torch.tensor([-inf, -inf, 1.0, inf, 2.0]), 0), {}),
    *(
        (
            "multilabel_margin_loss_forward.default",
            (_normal(3, 5), torch.where(_normal(3, 5) > 0.3, -1, _labels(3, 5)), reduction),
            {},
        )
        for reduction in (0, 1, 2)
    ),
    ("multilabel_margin_loss.default", (_normal(5), torch.tensor([3, 0, -1, 2, 1]), 1), {}),
    (
        "addbmm.default",
        (_normal(3, 4), _normal(2, 3, 5), _normal(2, 5, 4)),
        {"beta": 0.5, "alpha": 2.0},
    ),
    ("addbmm.default", (torch.full((3, 4), nan), _normal(2, 3, 5), _normal(2, 5, 4)), {"beta": 0}),
    (
        "digamma.default",
        (torch.cat([_normal(50).double() * 9, torch.tensor([0.0, -0.0, -2.0, 1e-3, 1e4, inf, -inf, nan])]),),
        {},
    ),
    (
        "frexp.Tensor",
        (torch.tensor([0.0, -0.0, 1.0, -3.5, 1e-45, 1e-39, 3e38, 2.0**24, inf, -inf, nan]),),
        {},
    ),
    ("frexp.Tensor", (torch.tensor([5e-324, 1e-310, 1.7e308, -(2.0**1023)], dtype=torch.float64),), {}),
    ("as_strided.default", (_normal(4, 5), [2, 3], [1, 2], 3), {}),
    *(
        (
            "_embedding_bag_forward_only.default",
            (_normal(9, 4), torch.tensor([1, 8, 0, 3, 3, 5]), torch.tensor([0, 2, 2, 5]), False, mode),
            {},
        )
        for mode in (0, 1, 2)
    ),
]


@pytest.mark.parametrize(("name", "args", "kwargs"), _CALLS, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(_CALLS)])
def test_it_is_what_the_operator_is(name: str, args: tuple, kwargs: dict[str, Any]) -> None:
    packet, overload = name.split(".")
    wants = getattr(getattr(torch.ops.aten, packet), overload)(*args, **kwargs)
    gots = SHARED[f"aten.{name}"](*args, **kwargs)
    for want, got in zip(*(v if isinstance(v, (tuple, list)) else (v,) for v in (wants, gots)), strict=True):
        if got is None:  # what nobody reads
            continue
        assert got.dtype == want.dtype
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_a_view_has_no_memory_of_its_own_to_stride_over() -> None:
    with pytest.raises(NotImplementedError, match="a view"):
        SHARED["aten.as_strided.default"](_normal(4, 5).T, [2], [1])
