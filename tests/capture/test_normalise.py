# SPDX-License-Identifier: Apache-2.0
"""Each clean-up: the node is gone, or stays where it means something, and no value changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from paritas.capture import capture
from paritas.capture.normalise import name_of
from paritas.run.torch.session import TorchSession


class Function(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def _mask(x: torch.Tensor) -> torch.Tensor:
    """How transformers reads a padding mask."""
    rows = torch.arange(x.shape[0])[:, None, None, None]
    columns = torch.arange(x.shape[1])[None, None, None, :]
    return x[rows, columns]


def _transposed(x: torch.Tensor) -> torch.Tensor:
    return x[torch.arange(x.shape[0])[None, :], torch.arange(x.shape[1])[:, None]]


def _shifted(x: torch.Tensor) -> torch.Tensor:
    return x[torch.arange(1, x.shape[0])[:, None], torch.arange(x.shape[1])[None, :]]


def _joined(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([part.reshape(-1) for part in x.split([1, x.shape[0] - 1])], 0) * 2


def _joined_in_another_order(x: torch.Tensor) -> torch.Tensor:
    return torch.cat(list(x.split([1, x.shape[0] - 1]))[::-1], 0) * 2


def _pairs(x: torch.Tensor) -> torch.Tensor:
    """`view_as_complex` is refused by torch where the two numbers of a pair are apart."""
    apart = torch.stack((x, -x)).permute(1, 2, 0)
    behind = apart.contiguous().unsqueeze(0)
    return torch.view_as_real(torch.view_as_complex(behind) * torch.view_as_complex(apart.contiguous()))


F32, I64, BOOL = torch.float32, torch.int64, torch.bool

#: (function, dtype of x, operators that must be gone, operators that must be there)
CASES = {
    "clone": (lambda x: x.clone() * 2, F32, {"aten.clone.default"}, {"aten.mul.Tensor"}),
    "detach": (lambda x: x.detach() * 2, F32, {"aten.detach.default", "aten.alias.default"}, set()),
    "dropout": (lambda x: nn.functional.dropout(x, 0.5, False) * 2, F32, {"aten.clone.default"}, set()),
    "same dtype": (lambda x: x.to(F32) * 2, F32, {"aten._to_copy.default"}, set()),
    "other dtype": (lambda x: x.to(I64) * 2, F32, set(), {"aten._to_copy.default"}),
    "whole slice": (lambda x: x[:, :] * 2, F32, {"aten.slice.Tensor"}, set()),
    "part slice": (lambda x: x[:, 1:] * 2, F32, set(), {"aten.slice.Tensor"}),
    "every second": (lambda x: x[:, ::2] * 2, F32, set(), {"aten.slice.Tensor"}),
    "same shape": (lambda x: x.expand(x.shape[0], x.shape[1]) * 2, F32, {"aten.expand.default"}, set()),
    "add integer 0": (lambda x: (x + 0) * 2, I64, {"aten.add.Tensor"}, set()),
    "add 0 to floats": (lambda x: x + 0, F32, set(), {"aten.add.Tensor"}),
    "add 0 to bool": (lambda x: x + 0, BOOL, set(), {"aten.add.Tensor"}),
    "true and": (lambda x: x.new_ones((), dtype=BOOL) & (x > 0), F32, {"aten.__and__.Tensor"}, set()),
    "view": (lambda x: x.view(-1) * 2, F32, {"aten.view.default"}, {"aten.reshape.default"}),
    "view of strided": (
        lambda x: x.t().contiguous().view(-1),
        F32,
        {"aten.view.default"},
        {"aten.reshape.default"},
    ),
    "mask": (_mask, BOOL, {"aten.index.Tensor"}, {"aten.unsqueeze.default"}),
    "split and joined": (
        lambda x: torch.cat(x.split([1, x.shape[0] - 1])) * 2,
        F32,
        {"aten.cat.default", "aten.split_with_sizes.default"},
        set(),
    ),
    "split, flattened and joined": (_joined, F32, {"aten.cat.default"}, {"aten.reshape.default"}),
    "split and joined otherwise": (_joined_in_another_order, F32, set(), {"aten.cat.default"}),
    "joined with nothing": (lambda x: torch.cat([x, x[:, :0]], 1) * 2, F32, {"aten.cat.default"}, set()),
    "gather that transposes": (_transposed, F32, set(), {"aten.index.Tensor"}),
    "pairs that lie together": (_pairs, F32, set(), {"aten.view_as_complex.default", "aten.clone.default"}),
    "gather of a part": (_shifted, F32, set(), {"aten.index.Tensor"}),
}


@pytest.mark.parametrize("name", CASES)
def test_clean_up(name: str) -> None:
    function, dtype, gone, kept = CASES[name]
    model = Function(function)

    def make(*shape: int) -> torch.Tensor:
        x = torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 3
        x.view(-1)[0] = -0.0
        return x > 0 if dtype == BOOL else x.to(dtype)

    program = capture(model, {"x": make(3, 5)})
    names = {name_of(node) for node in program.graph.nodes}
    assert not gone & names
    assert kept <= names
    for shape in ((3, 5), (4, 2)):
        (got,) = TorchSession(program).run({"x": make(*shape).numpy()})
        want = model(make(*shape))
        assert torch.equal(torch.from_numpy(got), want)
        assert torch.equal(torch.from_numpy(got).signbit(), want.signbit()), "-0.0 stays -0.0"


def test_an_output_that_was_an_alias_is_still_an_output() -> None:
    program = capture(Function(lambda x: x.relu().clone()), {"x": torch.randn(2, 3)})
    assert len(program.outputs) == 1
    (got,) = TorchSession(program).run({"x": torch.tensor([[-1.0, 2.0, -0.5], [1.0, 0.0, 3.0]]).numpy()})
    assert got.min() == 0
