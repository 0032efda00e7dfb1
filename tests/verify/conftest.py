# SPDX-License-Identifier: Apache-2.0
"""One small model and its program, captured once for all tests."""

from __future__ import annotations

import pytest
import torch
from small_programs import Mlp, program_of

from paritas.program import ModuleCall, Program


@pytest.fixture(scope="session")
def mlp() -> Mlp:
    torch.manual_seed(0)
    return Mlp().eval()


@pytest.fixture(scope="session")
def mlp_program(mlp: Mlp) -> Program:
    return program_of(
        mlp,
        {"x": torch.randn(3, 5, 8)},
        modules=(
            ModuleCall("up", "torch.nn.modules.linear.Linear", 0, ("linear",)),
            ModuleCall("norm", "torch.nn.modules.normalization.LayerNorm", 0, ("layer_norm",)),
            ModuleCall("down", "torch.nn.modules.linear.Linear", 0, ("linear_1",)),
        ),
    )
