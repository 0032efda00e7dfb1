# SPDX-License-Identifier: Apache-2.0
"""What is summed over many elements is not rounded away."""

from __future__ import annotations

import pytest
import torch

import paritas

GIVEN = 3 + torch.randn(1, 2, 12, 96, 96, generator=torch.Generator().manual_seed(0)) / 10


@pytest.mark.parametrize("engine", ["mindspore", "openvino"])
@pytest.mark.parametrize("model", [torch.nn.GroupNorm(1, 2), torch.nn.GroupNorm(2, 2)], ids=["one group", "two"])
def test_a_norm_of_large_groups(model: torch.nn.Module, engine: str) -> None:
    want = torch.nn.functional.group_norm(GIVEN.double(), model.num_groups)
    with paritas.port(model.eval(), engine=engine, inputs=(GIVEN,)) as port:
        assert (port(GIVEN) - want).abs().max() < 1e-5
