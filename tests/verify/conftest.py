# SPDX-License-Identifier: Apache-2.0
"""One small model and its program, captured once for all tests; ports on disk of the architectures of `subjects`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest
import torch
from small_programs import Mlp, program_of
from subjects import Subject, feed_of, original

import paritas
from paritas.program import ModuleCall, Program
from paritas.verify.inputs import suspects

#: As long as the product looks.
SECONDS = suspects.SECONDS


@pytest.fixture(scope="module")
def all_suspects() -> Iterator[None]:
    """For tests of what a verification finds by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suspects, "SECONDS", SECONDS)
        yield


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


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Subject]:
    """(architecture, engine) -> its port, made once per file of tests."""

    @functools.cache
    def subject(name: str, engine: str) -> Subject:
        port = paritas.port(original(name), engine=engine)
        directory = tmp_path_factory.mktemp(name) / "port"
        port.save(directory)
        return Subject(directory, port.program(), feed_of(port))

    return subject
