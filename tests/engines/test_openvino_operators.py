# SPDX-License-Identifier: Apache-2.0
"""Operators that OpenVINO's converter does not know, or gets wrong: a line each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

import paritas
from paritas.errors import LoweringError


def _triangle(rows: int) -> torch.Tensor:
    return torch.arange(rows * rows).reshape(rows, rows).sin().tril() * 0.3 + torch.eye(rows)


class Call(torch.nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def _after_sizes_of_values(x: torch.Tensor) -> torch.Tensor:
    """Torch makes sizes up for `repeat_interleave`, which no trace of what follows returns."""
    y = x.clone()
    y[0] = torch.repeat_interleave(x[0, :2], (x[0, :2] > 0).long()).sum()
    return torch.linalg.solve_triangular(_triangle(6), y.mT, upper=False)


OPERATORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "eye": lambda x: x @ torch.eye(6) + torch.eye(6, dtype=x.dtype)[0],
    "eye of a size": lambda x: torch.eye(x.shape[0]) @ x,
    "eye, not square": lambda x: x @ torch.eye(6, 3),
    "lgamma": lambda x: torch.lgamma(x * 3),
    "lgamma, positive": lambda x: torch.lgamma(x.abs() + 0.01),
    "histc": lambda x: torch.histc(x, 9, -2, 2),
    "triangular": lambda x: torch.linalg.solve_triangular(_triangle(6), x.mT, upper=False, unitriangular=True),
    "triangular, upper": lambda x: torch.linalg.solve_triangular(_triangle(6).mT, x.mT, upper=True),
    "triangular, right": lambda x: torch.linalg.solve_triangular(_triangle(6), x, upper=False, left=False),
    "triangular, after sizes of values": _after_sizes_of_values,
    "unbind": lambda x: x.unbind(1)[2] - x.unbind(1)[0],
    "split": lambda x: x.split(4, 1)[1],
    "softplus far below 0": lambda x: torch.nn.functional.softplus(x - 12) * 1e5,
    "softplus, steeper": lambda x: torch.nn.functional.softplus(x, 2.0, 3.0),
    "numel": lambda x: x.sum() / x.numel(),
    "bfloat16 inside": lambda x: ((x.bfloat16() * 1.7 + x.bfloat16()) / 3).float(),
    "float16 inside": lambda x: (x.half() * 1.7 + 0.3).square().float(),
    "rotation of complex numbers": lambda x: torch.view_as_real(
        torch.view_as_complex(x.reshape(-1, 3, 2)) * torch.polar(torch.ones(3), torch.arange(3.0))
    ),
    "Fourier and back": lambda x: torch.fft.irfft(torch.fft.rfft(x) * (1 + 0.5j), n=6),
    "two parts of a free size": lambda x: x.chunk(2)[1] - x.chunk(2)[0][:2].sum(),
    "a picture by a fraction": lambda x: torch.nn.functional.interpolate(
        x[None, None], scale_factor=1.3, mode="bilinear"
    ),
    "mean of a window": lambda x: F.avg_pool2d(x[None], 3, 2, 1),
    "an axis that is always 1 wide": lambda x: F.avg_pool1d(x.mT, 4).squeeze(-1),
    "an axis that is always 1 wide, among others": lambda x: (F.avg_pool1d(x.mT, 4)[:, None] + x[0]).squeeze((1, 2)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_it_computes_what_torch_computes(name):
    model = Call(OPERATORS[name])
    port = paritas.port(model, engine="openvino", inputs={"x": torch.randn(4, 6)})
    for rows in (4, 7):
        x = torch.randn(rows, 6, generator=torch.Generator().manual_seed(rows))
        torch.testing.assert_close(port(x=x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
@pytest.mark.parametrize(
    "function", [lambda x: x + torch.randn_like(x), lambda x: x[torch.randint(0, 4, (9,))], torch.bernoulli]
)
def test_a_model_that_draws_random_numbers_is_refused(engine, function):
    with pytest.raises(LoweringError, match="draws random numbers"):
        paritas.port(Call(function), engine=engine, inputs={"x": torch.rand(4, 6)})


def test_float64_that_becomes_float32_is_a_note():
    port = paritas.port(Call(lambda x: (x.double() * 0.1).exp()), engine="openvino", inputs={"x": torch.rand(4, 6)})
    notes = [note.text for note in port.notes if "float64" in note.text]
    assert len(notes) == 1
    assert notes[0].startswith("float64 is computed in float32: aten.mul.Tensor at test_openvino_operators.py:")
    assert notes[0].endswith(", and 1 more")


def test_a_fourier_transform_of_a_free_size_is_exact():
    port = paritas.port(Call(lambda x: torch.fft.irfft(torch.fft.rfft(x)[..., 1:])), inputs={"x": torch.randn(2, 6)})
    for size in (1000, 4099):
        x = torch.randn(2, size)
        want = torch.fft.irfft(torch.fft.rfft(x.double())[..., 1:])
        assert (port(x=x) - want).abs().max() < 5e-6


def test_the_end_of_what_was_written_into_a_free_size_is_there():
    def ends(x):
        states = x.new_zeros(x.shape[0], x.shape[1] + 8)
        states[:, 0:8] = x[:, :1]
        states[:, -8:] = x[:, -1:]
        return states

    port = paritas.port(Call(ends), inputs={"x": torch.rand(3, 11)})
    for size in (11, 20):
        x = torch.rand(2, size)
        assert torch.equal(port(x=x), ends(x))


SHAPE = (2, 4, 6, 6)
_CONSTANT = torch.nn.Parameter(torch.arange(288.0).reshape(SHAPE).sin())

#: What no input reaches, by operators that OpenVINO does not fold.
CONSTANTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "convolution of zeros": lambda x: F.conv2d(torch.zeros_like(x), _CONSTANT[0][None], _CONSTANT[0, 0, 0, :1]),
    "convolution": lambda x: F.conv2d(_CONSTANT, _CONSTANT[:, :, :3, :3].repeat(2, 1, 1, 1), padding=1),
    "group norm": lambda x: F.group_norm(_CONSTANT, 2, _CONSTANT[0, :, 0, 0]),
    "pooling": lambda x: F.avg_pool2d(_CONSTANT, 3, 1, 1),
    "normalisation": lambda x: F.normalize(_CONSTANT, dim=1),
    "one after another": lambda x: F.group_norm(F.conv_transpose2d(_CONSTANT, _CONSTANT[0, :, None, :1, :1]), 1).relu(),
}


class AllConstants(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.constant = _CONSTANT

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [function(x) + x.exp() for function in CONSTANTS.values()]


def test_what_no_input_reaches_is_not_written_over() -> None:
    x = torch.arange(288.0).reshape(SHAPE).cos()
    model = AllConstants().eval()
    port = paritas.port(model, engine="openvino", inputs={"x": x}, dynamic=False)
    for _ in range(2):
        for name, found, wanted in zip(CONSTANTS, port(x=x), model(x), strict=True):
            torch.testing.assert_close(found, wanted.detach(), msg=name)
