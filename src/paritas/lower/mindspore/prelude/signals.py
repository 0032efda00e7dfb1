# SPDX-License-Identifier: Apache-2.0
"""Signals and sequences, for generated modules.

A library of source text, as `attention_and_norm.py` is. Measured with MindSpore 2.10 on x86 CPUs.
"""

import mindspore as ms
from mindspore import Tensor, ops

from paritas.lower.mindspore.prelude.attention_and_norm import sigmoid, tanh

product_t = ops.MatMul(transpose_b=True)
write_row = ops.TensorScatterUpdate()


def spectrogram(x: Tensor, window: Tensor, width: int, hop: int) -> Tensor:
    # (.., length) to (.., width // 2 + 1, frames).
    frames = (x.shape[-1] - width) // hop + 1
    taken = ops.arange(frames).reshape((frames, 1)) * hop + ops.arange(width)
    pieces = ops.gather(x, taken, x.ndim - 1) * window
    return ops.rfft(pieces).swapaxes(-1, -2)


def project(x: Tensor, weight: Tensor) -> Tensor:
    # One product for all steps of a sequence.
    steps, batch, width = x.shape
    return product_t(x.reshape((steps * batch, width)), weight).reshape((steps, batch, -1))


def gru_steps(gates: Tensor, state: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    # gates: (steps, batch, 3 * width), what the inputs give to the gates. The loop is on a tensor,
    # so Graph mode keeps it a loop; 200 steps written out would compile for most of a minute.
    width = state.shape[1]
    outputs = ops.zeros((*gates.shape[:2], width), gates.dtype)
    step = Tensor(0, ms.int64)
    while step < gates.shape[0]:
        given_r, given_z, given_n = ops.split(ops.gather(gates, step, 0), width, 1)
        own_r, own_z, own_n = ops.split(product_t(state, weight) + bias, width, 1)
        reset = sigmoid(given_r + own_r)
        update = sigmoid(given_z + own_z)
        fresh = tanh(given_n + reset * own_n)
        state = fresh + update * (state - fresh)
        outputs = write_row(outputs, step.reshape((1, 1)), state.expand_dims(0))
        step = step + 1
    return outputs, state


def lstm_steps(
    gates: Tensor, state: Tensor, cell: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    # ops.LSTM is faster, but knows float32 only. gates: (steps, batch, 4 * width).
    width = state.shape[1]
    outputs = ops.zeros((*gates.shape[:2], width), gates.dtype)
    step = Tensor(0, ms.int64)
    while step < gates.shape[0]:
        total = ops.gather(gates, step, 0) + product_t(state, weight) + bias
        take, keep, fresh, show = ops.split(total, width, 1)
        cell = sigmoid(keep) * cell + sigmoid(take) * tanh(fresh)
        state = sigmoid(show) * tanh(cell)
        outputs = write_row(outputs, step.reshape((1, 1)), state.expand_dims(0))
        step = step + 1
    return outputs, state, cell


def lstm_steps_projected(
    gates: Tensor, state: Tensor, cell: Tensor, weight: Tensor, bias: Tensor, projection: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    width = cell.shape[1]
    outputs = ops.zeros((*gates.shape[:2], state.shape[1]), gates.dtype)
    step = Tensor(0, ms.int64)
    while step < gates.shape[0]:
        total = ops.gather(gates, step, 0) + product_t(state, weight) + bias
        take, keep, fresh, show = ops.split(total, width, 1)
        cell = sigmoid(keep) * cell + sigmoid(take) * tanh(fresh)
        state = product_t(sigmoid(show) * tanh(cell), projection)
        outputs = write_row(outputs, step.reshape((1, 1)), state.expand_dims(0))
        step = step + 1
    return outputs, state, cell


def rnn_tanh_steps(
    gates: Tensor, state: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    outputs = ops.zeros_like(gates)
    step = Tensor(0, ms.int64)
    while step < gates.shape[0]:
        state = tanh(ops.gather(gates, step, 0) + product_t(state, weight) + bias)
        outputs = write_row(outputs, step.reshape((1, 1)), state.expand_dims(0))
        step = step + 1
    return outputs, state


def rnn_relu_steps(
    gates: Tensor, state: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    outputs = ops.zeros_like(gates)
    step = Tensor(0, ms.int64)
    while step < gates.shape[0]:
        state = ops.maximum(0, ops.gather(gates, step, 0) + product_t(state, weight) + bias)
        outputs = write_row(outputs, step.reshape((1, 1)), state.expand_dims(0))
        step = step + 1
    return outputs, state


def run_starts(x: Tensor) -> Tensor:
    # Where a run of equal values begins.
    return ops.cat((ops.ones((1,), ms.bool_), x[1:] != x[:-1]), 0)


def run_lengths(starts: Tensor, x: Tensor) -> Tensor:
    ends = ops.cat((starts[1:], ops.full((1,), x.shape[0], dtype=ms.int64)), 0)
    return ends - starts
