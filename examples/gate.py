# SPDX-License-Identifier: Apache-2.0
"""The smallest module that has everything: a weight, a call of another module, an operator of its own.

paritas port examples/gate.py:build --input x=2x3x4 --engine mindspore --out gate-ms
"""

import torch


class Gate(torch.nn.Module):
    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.score = torch.nn.Linear(size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.score(x))


def build() -> Gate:
    torch.manual_seed(0)
    return Gate().eval()
