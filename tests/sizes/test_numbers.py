# SPDX-License-Identifier: Apache-2.0
"""Sizes as numbers in arithmetic: halves and quotients of sizes are no whole numbers, as they would be in a shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import paritas

#: x, the length and the width of x -> a tensor.
FORMS: tuple[Callable[[Any, Any, Any], Any], ...] = (
    lambda x, length, width: x * (length / 2),
    lambda x, length, width: x / (length / width),
    lambda x, length, width: x + length / (width + 1),
    lambda x, length, width: x * (length**-0.5),
    lambda x, length, width: x * (length * width) ** 0.25,
    lambda x, length, width: x * (length // 2) / width,
    lambda x, length, width: x * (0.5 * length - 0.3),
    lambda x, length, width: x + length % 3 / 2,
    lambda x, length, width: x * (-length // 2),
    lambda x, length, width: x + math.floor(-length / 2) * 0.1,
    lambda x, length, width: x.roll(math.floor(-length / 2), 1),
    lambda x, length, width: x[:, : math.ceil(length / 2)],
    lambda x, length, width: torch.full((2,), length / 4) * x.sum(),
    lambda x, length, width: torch.scalar_tensor(length / 2) + x,
    lambda x, length, width: torch.arange(length) * (2 / length) + x.sum(),
    lambda x, length, width: torch.linspace(-1, 1, length) + x.sum(),
    lambda x, length, width: torch.where(x > 1 / length, x, length / 2),
    lambda x, length, width: x.clamp(min=-1 / length, max=length / 100),
    lambda x, length, width: torch.add(x, x, alpha=length / 2),
    lambda x, length, width: x.sum(1) / length - x.std(1) * ((length - 1) / length) ** 0.5,
)


class Forms(torch.nn.Module):
    def forward(self, x):
        return [form(x, x.shape[1], x.shape[2]) for form in FORMS]


@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
def test_a_size_is_a_number_in_arithmetic(engine: str) -> None:
    pytest.importorskip(engine)
    model = Forms().eval()
    x, other = torch.randn(2, 5, 6), torch.randn(3, 8, 4)
    port = paritas.port(model, engine=engine, inputs={"x": x})
    for given in (x, other):
        wrong = [
            number
            for number, (got, want) in enumerate(zip(port(x=given), model(given), strict=True))
            if not torch.allclose(got, want, rtol=1e-4, atol=1e-5)
        ]
        assert wrong == []
    assert port.others is None or not port.others.ports  # one port for all sizes
