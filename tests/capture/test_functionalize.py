# SPDX-License-Identifier: Apache-2.0
"""What writes into a tensor is captured as what returns a new one: at once where that is sure, by torch elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from paritas.capture import capture
from paritas.run.torch.session import TorchSession

Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _buckets(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    """As T5 and MPNet count distances."""
    found = (n > 0).to(torch.int64) * 4
    n = n.abs()
    found += torch.where(n < 3, n, n * 2)
    found += 1
    return x * found


def _again_and_again(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    y = x * 2
    before = y + 1
    y += x
    y *= before
    return y.masked_fill_(n > 0, -3.0)


def _at_places(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    y = torch.zeros(4, 4)
    y[torch.arange(4), n[:, 0].abs() % 4] = x[:, 0]
    y[torch.tensor([0, 2])] = 9.0
    return y


def _of_another_dtype(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    y = n * 2
    y += x.to(torch.int32)
    half = x.to(torch.float16)
    half += x
    return y + half


def _through_a_layer(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    y = x + 1
    z = torch.nn.functional.linear(y, torch.eye(4))
    y += z
    return y - z


def _seen_by_a_view(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    y = x * 2
    row = y[0]
    y += x
    return y + row


def _written_by_a_view(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y[:, 1:] += 5
    return y


def _the_same_in_inference(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    y = x * 2
    z = torch.nn.functional.dropout(y, 0.5, training=False)
    z += 1
    return y + z


def _written_after_it_is_returned(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    y = x * 2
    flat = y.reshape(-1)
    y -= 7
    return flat


AT_ONCE = (_buckets, _again_and_again, _at_places, _through_a_layer, _the_same_in_inference)
BY_TORCH = (
    _of_another_dtype,
    _seen_by_a_view,
    _written_by_a_view,
    _written_after_it_is_returned,
)


class Model(torch.nn.Module):
    def __init__(self, function: Forward) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return self.function(x, n)


@pytest.mark.parametrize("function", [*AT_ONCE, *BY_TORCH])
def test_it_answers_as_the_model(function: Forward, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    own = torch.export.ExportedProgram.run_decompositions
    monkeypatch.setattr(
        torch.export.ExportedProgram, "run_decompositions", lambda *given: asked.append(own) or own(*given)
    )
    x, n = torch.arange(-8.0, 8).reshape(4, 4), torch.arange(-8, 8).reshape(4, 4)
    program = capture(Model(function), {"x": x, "n": n})
    assert bool(asked) == (function in BY_TORCH)
    assert not [node for node in program.graph.nodes if "_." in str(node.target)]
    (got,) = TorchSession(program).run({"x": x.numpy(), "n": n.numpy()})
    assert torch.equal(torch.from_numpy(got), function(x, n))
    assert not [note for note in program.notes if "otherwise" in str(note)]
