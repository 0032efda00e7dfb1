# SPDX-License-Identifier: Apache-2.0
"""Experts, recurrent networks, complex numbers, Fourier transforms, and what depends on values."""

import torch
import transformers.integrations.moe  # noqa: F401 - defines the operator transformers.grouped_mm_fallback
from making import Size, bools, case, inf, ints, matrix, nan, tensor, values, vector

from paritas.verify.tolerance import Tolerance


def _experts(rows: object, weight: object, ends: list, dtype: str = "int32") -> object:
    return case("transformers.grouped_mm_fallback.default", rows, weight, values(ends, dtype))


EXPERTS = [
    # 12 rows and 3 experts: blocks of several rows; the second expert has none.
    _experts(matrix(12, 5), tensor(3, 5, 4), [7, 7, 12]),
    _experts(matrix(12, 5), tensor(3, 5, 4), [0, 0, 12], "int64"),
    _experts(matrix(12, 5), tensor(3, 5, 4), [1, 11, 12]),
    # Rows behind the last expert's are 0.
    _experts(matrix(12, 5), tensor(3, 5, 4), [2, 5, 9]),
    _experts(matrix(12, 5), tensor(3, 5, 4), [0, 0, 0]),
    # Fewer rows than experts.
    _experts(matrix(2, 5), tensor(4, 5, 3), [0, 1, 1, 2]),
    _experts(matrix(2, 5), tensor(4, 5, 3), [0, 1, 1, 1]),
    _experts(matrix(6, 5), tensor(1, 5, 3), [6]),
    _experts(matrix(8, 5).dynamic(0), tensor(3, 5, 4).strided(0, 2, 1), [2, 2, 6]),
    case("aten.histc.default", ints(40, low=0, high=8).as_("float32"), 8, 0, 7),
    case("aten.histc.default", values([0.0, 1, 1, 3, 3, 3, 4, -1, nan, inf, -inf]), 4, 0, 3),
    case("aten.histc.default", matrix(7, 9).dynamic(0), 13, -2.5, 1.75),
    case("aten.histc.default", values([2.0]), 1, 0, 7),
    case("aten.histc.default", values([2.0, 5.0, 2.0]), 1, 0, 0),
    case("aten.histc.default", values([]), 3, 0, 2),
]

_Z = "complex64"

COMPLEX = [
    case("aten.view_as_complex.default", tensor(3, 4, 2).dynamic(0)),
    case("aten.view_as_complex.default", values([[nan, 1.0], [inf, -inf], [-0.0, 0.0]])),
    case("aten.view_as_complex.default", values([1.0, 2.0])),
    case("aten.view_as_real.default", tensor(3, 4, dtype=_Z).dynamic(0, 1)),
    case("aten.view_as_real.default", values(complex(nan, 2), _Z)),
    case("aten.complex.default", matrix(3, 4), vector(4).with_(nan, inf)),
    case("aten.polar.default", matrix(3, 4), matrix(3, 4)),
    case("aten.polar.default", matrix(3, 4).above_zero(), vector(4)),
    case("aten.real.default", tensor(3, 4, dtype=_Z)),
    case("aten.real.default", matrix(3, 4)),
    case("aten.imag.default", tensor(3, 4, dtype=_Z)),
    case("aten.angle.default", tensor(3, 4, dtype=_Z)),
    case("aten.conj.default", tensor(3, 4, dtype=_Z)),
    case("aten._conj.default", tensor(3, 4, dtype=_Z)),
    case("aten.conj_physical.default", matrix(3, 4)),
    case("aten.resolve_conj.default", tensor(3, 4, dtype=_Z)),
    case("aten.abs.default", tensor(3, 4, dtype=_Z)),
    case("aten.mul.Tensor", tensor(2, 3, 4, dtype=_Z), tensor(3, 4, dtype=_Z)),
    case("aten.mul.Tensor", tensor(3, 4, dtype=_Z), matrix(3, 4)),
    case("aten.mul.Tensor", tensor(3, 4, dtype=_Z), 1.5),
    case("aten.add.Tensor", tensor(3, 4, dtype=_Z), tensor(4, dtype=_Z), alpha=2),
    case("aten.sub.Tensor", tensor(3, 4, dtype=_Z), vector(4)),
    case("aten.div.Tensor", tensor(3, 4, dtype=_Z), vector(4).above_zero()),
    case("aten.neg.default", tensor(3, 4, dtype=_Z)),
    case("aten.unsqueeze.default", tensor(3, 4, dtype=_Z), 1),
    case("aten.slice.Tensor", tensor(3, 4, dtype=_Z), 1, 1, 3),
    case("aten.select.int", tensor(3, 4, dtype=_Z), 0, 1),
    case("aten.reshape.default", tensor(3, 4, dtype=_Z), [2, 6]),
    case("aten.transpose.int", tensor(3, 4, dtype=_Z), 0, 1),
    case("aten.cat.default", [tensor(3, 4, dtype=_Z), tensor(1, 4, dtype=_Z)], 0),
    case("aten.expand.default", tensor(1, 4, dtype=_Z), [3, 4]),
    case("aten.index_select.default", tensor(3, 4, dtype=_Z), 0, values([2, 0], "int64")),
    case("aten.sum.dim_IntList", tensor(3, 4, dtype=_Z), [1]),
    case("aten._to_copy.default", matrix(3, 4), dtype=torch.complex64),
]

_FFT = Tolerance(0.0, 0.0, "sums of some hundred terms of both signs, in another order", scaled=2e-6)

_SIGNAL = matrix(2, 50).dynamic(1)

FOURIER = [
    case("aten.fft_fft.default", matrix(5, 12).dynamic(1), within=_FFT),
    case("aten.fft_fft.default", tensor(5, 12, dtype=_Z), 16, 0, "ortho", within=_FFT),
    case("aten.fft_fft.default", matrix(5, 12), 7, -1, "forward", within=_FFT),
    case("aten.fft_ifft.default", tensor(5, 12, dtype=_Z), within=_FFT),
    case("aten.fft_ifft.default", tensor(5, 12, dtype=_Z), None, -2, "forward", within=_FFT),
    case("aten.fft_rfft.default", matrix(5, 13), within=_FFT),
    case("aten.fft_rfft.default", matrix(5, 13).dynamic(0, 1), within=_FFT),
    case("aten.fft_irfft.default", matrix(2, 7, dtype=_Z).dynamic(0, 1), within=_FFT),
    case("aten.fft_irfft2.default", tensor(2, 5, 7, dtype=_Z).dynamic(0, 1, 2), within=_FFT),
    case("aten.fft_irfft.default", matrix(3, 16)),  # a real spectrum, as those that follow
    *(case("aten.fft_irfft.default", matrix(2, n // 2 + 1), n, within=_FFT) for n in (99, 250, 1031)),
    case("aten.fft_rfft.default", matrix(5, 12), 16, -2, "ortho", within=_FFT),
    case("aten.fft_rfft.default", ints(5, 12), within=_FFT),
    case("aten.fft_irfft.default", tensor(5, 7, dtype=_Z), within=_FFT),
    case("aten.fft_irfft.default", tensor(5, 7, dtype=_Z), 13, 1, "backward", within=_FFT),
    case("aten.fft_fft2.default", tensor(2, 5, 12), within=_FFT),
    case("aten.fft_ifft2.default", tensor(2, 5, 12, dtype=_Z), within=_FFT),
    case("aten.fft_rfft2.default", tensor(2, 5, 12), norm="ortho", within=_FFT),
    case("aten.fft_irfft2.default", tensor(2, 5, 7, dtype=_Z), [5, 12], within=_FFT),
    case("aten.fft_fftn.default", tensor(2, 9, 16).dynamic(0, 1), None, [1, 2], within=_FFT),
    case("aten.fft_fftn.default", tensor(2, 5, 6), within=_FFT),
    case("aten.fft_fftn.default", tensor(2, 5, 6), [4, 8], [-1, 0], within=_FFT),
    case("aten.fft_ifftn.default", tensor(2, 5, 6, dtype=_Z), None, [0, 2], within=_FFT),
    case("aten.fft_rfftn.default", tensor(2, 5, 6), within=_FFT),
    case("aten.fft_irfftn.default", tensor(2, 5, 6, dtype=_Z), None, [1, 2], within=_FFT),
    case(
        "aten.stft.default",
        matrix(2, 50).dynamic(1),
        16,
        5,
        16,
        vector(16).above_zero(),
        return_complex=True,
        within=_FFT,
    ),
    case("aten.stft.default", vector(40), 16, 4, 10, vector(10), True, return_complex=False, within=_FFT),
    case("aten.stft.default", vector(40), 12, return_complex=True, within=_FFT),
]


def _weights(inputs: int, width: int, gates: int, layers: int = 1, directions: int = 1, biases: bool = True) -> list:
    made = []
    for layer in range(layers):
        for _ in range(directions):
            wide = gates * width
            made += [matrix(wide, width * directions if layer else inputs), matrix(wide, width)]
            made += [vector(wide), vector(wide)] * biases
    return made


_RECURRENT = Tolerance(0.0, 0.0, "errors of a step enter the next: 10 steps of two products each", scaled=4e-6)
_GRU, _RNN = _weights(5, 4, 3), _weights(5, 4, 1)


def _recurrent(
    name: str, x, state, weights: list, layers: int, both: bool, batch_first: bool, biases: bool = True
) -> object:
    return case(
        f"aten.{name}.input",
        x,
        state,
        weights,
        biases,
        layers,
        0.1,
        False,
        both,
        batch_first,
        within=_RECURRENT,
    )


def _states(*shape: int) -> list:
    return [tensor(*shape).dynamic(1), tensor(*shape).dynamic(1)]


RECURRENT = [
    _recurrent("lstm", tensor(7, 2, 5).dynamic(0, 1), _states(1, 2, 4), _weights(5, 4, 4), 1, False, False),
    _recurrent("lstm", tensor(2, 7, 5), [tensor(4, 2, 4)] * 2, _weights(5, 4, 4, 2, 2), 2, True, True),
    _recurrent(
        "lstm",
        tensor(1, 1, 5),
        [tensor(1, 1, 4)] * 2,
        _weights(5, 4, 4, biases=False),
        1,
        False,
        False,
        False,
    ),
    _recurrent("lstm", tensor(3, 2, 5).with_(nan), [tensor(1, 2, 4)] * 2, _weights(5, 4, 4), 1, False, False),
    _recurrent("gru", tensor(7, 2, 5), tensor(1, 2, 4), _GRU, 1, False, False),
    _recurrent("gru", tensor(2, 3, 5), tensor(4, 2, 4), _weights(5, 4, 3, 2, 2), 2, True, True),
    _recurrent("gru", tensor(1, 1, 5), tensor(1, 1, 4), _weights(5, 4, 3, biases=False), 1, False, False, False),
    _recurrent("rnn_tanh", tensor(7, 2, 5), tensor(1, 2, 4), _RNN, 1, False, False),
    _recurrent("rnn_tanh", tensor(2, 7, 5), tensor(4, 2, 4), _weights(5, 4, 1, 2, 2), 2, True, True),
    _recurrent("rnn_relu", tensor(7, 2, 5), tensor(1, 2, 4), _weights(5, 4, 1, biases=False), 1, False, False, False),
    _recurrent("rnn_relu", tensor(3, 2, 5).with_(nan), tensor(2, 2, 4), _weights(5, 4, 1, 1, 2), 1, True, False),
]

RANDOM = [
    case("aten.bernoulli.p", matrix(3, 4), 0.0),
    case("aten.bernoulli.p", matrix(3, 4).dynamic(0), 1.0),
    case("aten.rand.default", [0, 3]),
    case("aten.randn.default", [0, 3]),
    case("aten.rand_like.default", matrix(0, 3)),
    case("aten.randn_like.default", matrix(0, 3)),
    case("aten.normal.float_float", 0.0, 1.0, [0, 3]),
]


def _triangle(*shape: int) -> object:
    rows = shape[-1]
    value = torch.randn(shape, generator=torch.Generator().manual_seed(rows)) * 0.5
    return values((value + 2 * torch.eye(rows)).tolist())


_SOLVE = "linalg_solve_triangular.default"

TRIANGULAR = [
    *(
        case(
            f"aten.{_SOLVE}",
            _triangle(2, rows, rows),
            tensor(2, rows, 3),
            upper=upper,
            unitriangular=unit,
        )
        for rows in (1, 5, 8)
        for upper in (False, True)
        for unit in (False, True)
    ),
    case(
        f"aten.{_SOLVE}",
        _triangle(6, 6),
        matrix(4, 6).dynamic(0),
        upper=False,
        left=False,
    ),
    case(f"aten.{_SOLVE}", _triangle(6, 6), matrix(4, 6), upper=True, left=False),
    case(f"aten.{_SOLVE}", matrix(5, 5).filled(1).dynamic(0, 1), matrix(5, 3).dynamic(0), upper=False),
    case(f"aten.{_SOLVE}", matrix(0, 0), matrix(0, 3), upper=True),
]

FOUND = [
    # A size that is a sum keeps its parentheses.
    case("aten.mul.Tensor", matrix(4, 7).dynamic(1), Size(0, 1, -3)),
    case("aten.sub.Tensor", matrix(4, 7).dynamic(1), Size(0, 1, -3)),
    case("aten.clamp.default", ints(4, 7).dynamic(1), 0, Size(0, 1, -3)),
    case("aten.clamp.default", matrix(4, 7).dynamic(1), Size(0, 1, -8), Size(0, 1, -7)),
    case("aten.pad.default", matrix(4, 7).dynamic(1), [0, Size(0, 1), 0, 0]),
    case("aten.constant_pad_nd.default", matrix(4, 7).dynamic(0, 1), [0, 0, 0, Size(0, 1, -5)], 1.5),
    case("aten.constant_pad_nd.default", matrix(7, 4).dynamic(0), [0, 1, 0, Size(0, 0, -7)]),
    *(
        case("aten.pad.default", matrix(4, 7).dynamic(1), [2, Size(0, 1, -5)], mode)
        for mode in ("reflect", "replicate", "circular")
    ),
    case("aten.pad.default", matrix(4, 7).dynamic(1), [Size(0, 1, -5), Size(0, 1, -7)], "reflect"),
    case("aten.constant_pad_nd.default", matrix(7, 4).dynamic(0), [0, 1, Size(0, 0, -7), 2], 0.5),
    case("aten.pad.default", matrix(4, 7).dynamic(1), [Size(0, 1, -4), 3]),
    case(
        "aten.slice_scatter.default",
        matrix(9, 4).dynamic(0),
        matrix(3, 4),
        0,
        Size(0, 0, -6),
        None,
        2,
    ),
    case("aten.slice_scatter.default", matrix(4, 9).dynamic(1), matrix(4, 2), 1, Size(0, 1, -3), 2**63 - 1, 2),
    # Bounds that count from the end, computed of a size.
    case("aten.slice_scatter.default", matrix(4, 9).dynamic(1), matrix(4, 3), 1, Size(0, 1, -16), Size(0, 1, -13)),
    case("aten.slice_scatter.default", matrix(4, 9).dynamic(1), matrix(4, 3), 1, Size(0, 1, -7), Size(0, 1, -4)),
    case("aten.slice_scatter.default", matrix(4, 9).dynamic(1), matrix(4, 2), 1, Size(0, 1, -16), Size(0, 1, -13), 2),
    case("aten.select_scatter.default", matrix(4, 9).dynamic(1), vector(4), 1, Size(0, 1, -13)),
    case("aten.narrow.default", matrix(4, 9).dynamic(1), 1, Size(0, 1, -14), 2),
    case("aten.narrow.default", matrix(4, 9).dynamic(1), 1, Size(0, 1, -4), 3),
    case("aten.index_put.default", matrix(4, 3), [values([True, False, True, True], "bool")], matrix(3, 3)),
    case(
        "aten.index_put.default",
        tensor(2, 3, 4),
        [values([[True, False, True], [False, True, False]], "bool")],
        matrix(3, 4),
    ),
    case("aten.index_put.default", tensor(2, 3, 4), [bools(2, 3)], matrix(1, 4)),
    case("aten.index_put.default", tensor(2, 3, 4), [bools(2, 3)], vector(4)),
    case(
        "aten.index_put.default",
        matrix(3, 4),
        [values([[True] * 4, [False] * 4, [True] * 4], "bool")],
        vector(8),
    ),
    case("aten.argsort.stable", ints(4, 9, low=0, high=3), stable=True),
    case("aten.argsort.stable", ints(4, 9, low=0, high=3), stable=True, dim=0, descending=True),
    case("aten.nonzero.default", values([[0.0, 1.0, nan], [2.0, 0.0, -0.0]])),
    case("aten.nonzero.default", bools(9).dynamic(0)),
    case("aten.repeat_interleave.self_Tensor", matrix(3, 4), values([2, 0, 3], "int64"), 0),
    case("aten.repeat_interleave.self_Tensor", matrix(4, 3).dynamic(0), values([2, 1, 3], "int32"), -1),
    case("aten.repeat_interleave.self_Tensor", vector(2), values([0, 5], "int64")),
    case("aten.repeat_interleave.Tensor", values([2, 0, 1], "int64")),
    case("aten.nonzero.default", ints(2, 3, 4, low=0, high=2)),
    case("aten.nonzero.default", values([0.0, 0.0])),
    case("aten.argwhere.default", bools(3, 4)),
    case("aten.where.default", bools(3, 4)),
    case(
        "aten.gru_cell.default",
        matrix(2, 3),
        matrix(2, 4),
        matrix(12, 3),
        matrix(12, 4),
        vector(12),
        vector(12),
    ),
    case(
        "aten.lstm_cell.default",
        matrix(2, 3),
        [matrix(2, 4), matrix(2, 4)],
        matrix(16, 3),
        matrix(16, 4),
        vector(16),
        vector(16),
    ),
    *(
        case(
            f"aten.rnn_{kind}_cell.default",
            matrix(2, 3),
            matrix(2, 4),
            matrix(4, 3),
            matrix(4, 4),
            vector(4),
            vector(4),
        )
        for kind in ("tanh", "relu")
    ),
    case("aten.linalg_inv.default", values([[4.0, 1.0], [-1.0, 3.0]])),
    *(
        case("aten.diagonal_scatter.default", matrix(4, 5), vector(size), offset)
        for size, offset in ((4, 0), (3, 2), (3, -1))
    ),
    case("aten.inverse.default", values([[4.0, 1.0, 0.5], [-1.0, 3.0, 0.25], [0.5, -0.5, 2.0]])),
    case("aten.linalg_inv_ex.default", values([[[4.0, 1.0], [-1.0, 3.0]], [[0.5, 2.0], [1.0, -0.5]]])),
    case("aten.masked_select.default", matrix(3, 4), bools(3, 4)),
    case("aten.masked_select.default", matrix(3, 4), bools(3, 4).filled(0)),
    case("aten.index.Tensor", matrix(5, 4).dynamic(0, 1), [bools(5).dynamic(0)]),
    case("aten.index.Tensor", tensor(3, 4, 5).dynamic(0, 1), [bools(3, 4).dynamic(0, 1)]),
    case("aten.index.Tensor", tensor(2, 3, 4, 5), [None, bools(3, 4)]),
    case("aten.index.Tensor", matrix(5, 4), [bools(5).filled(0)]),
    case("aten.unique_consecutive.default", values([3, 3, 1, 1, 1, 2, 3], "int64"), True, True),
    case("aten.unique_consecutive.default", values([[1.0, 1.0, 2.0], [2.0, nan, nan]]), True),
    case("aten.unique_consecutive.default", ints(12, low=0, high=2), False, True, 0),
    case("aten.unique_consecutive.default", values([[1, 2], [1, 2], [3, 2], [1, 2]], "int64"), True, True, 0),
    case("aten.unique_consecutive.default", values([[[1.0, 1.0, 2.0]], [[0.0, 0.0, 0.0]]]), True, True, -1),
    case("aten.unique_consecutive.default", tensor(5, 1, 3), True, True, 1),
    case("aten.unique_consecutive.default", ints(1)),
]
