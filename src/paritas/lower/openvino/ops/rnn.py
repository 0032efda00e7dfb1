# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers: OpenVINO's own sequences, of any length, one for each layer and direction.

Gates are in another order than torch's, and biases are added up: weights are put in order once, while lowering.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openvino.opset16 as ops

from paritas.lower.openvino.emit import Emitter, Tensor, out
from paritas.lower.openvino.ops.registry import lowers


def _layers(
    emit: Emitter,
    input: Tensor,
    params: Sequence[Tensor],
    one: Callable[..., Any],
    *,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Any, Any]:
    """`one(x, index, reverse, weights)` for every layer and direction: the output and the last states."""
    if train and dropout:
        raise emit.refuse("a recurrent layer with dropout in training mode")
    directions = 2 if bidirectional else 1
    count = len(params) // (directions * num_layers)
    x = out(input) if batch_first else emit.transpose(input, (1, 0, 2))
    states = []
    for layer in range(num_layers):
        found = []
        for direction in range(directions):
            index = layer * directions + direction
            y, *last = one(x, index, bool(direction), params[count * index : count * (index + 1)])
            found.append(y)
            states.append(last)
        x = found[0] if directions == 1 else out(ops.concat(found, 2))
    last = [out(ops.concat(list(parts), 0)) for parts in zip(*states, strict=True)]
    return (x if batch_first else emit.transpose(x, (1, 0, 2))), last


def _lengths(emit: Emitter, x: Tensor) -> Tensor:
    """Every sequence is whole: written as OpenVINO recognises it, so that its kernel runs and no loop around cells."""
    shape = ops.shape_of(x, output_type="i32")
    batch, length = (ops.gather(shape, emit.array([axis]), np.int64(0)) for axis in (0, 1))
    return ops.broadcast(length, batch)


def _state(emit: Emitter, states: Tensor, index: int) -> Tensor:
    """[layers, batch, width] -> that layer's state as OpenVINO takes it, [batch, 1, width]."""
    return emit.transpose(emit.slice(states, index, index + 1, 0), (1, 0, 2))


def _gates(value: Tensor, order: Sequence[int]) -> Tensor:
    """The blocks of rows in another order: [gates * width, ..] -> the same, one direction in front."""
    if order == (0,):
        return ops.unsqueeze(value, np.int64(0))
    parts = ops.split(value, np.int64(0), len(order)).outputs()
    whole = [part for _, part in sorted(zip(order, parts, strict=True), key=lambda pair: pair[0])]
    return ops.unsqueeze(ops.concat(whole, 0), np.int64(0))


def _bias(emit: Emitter, weights: Sequence[Tensor], has_biases: bool, rows: int, order: Sequence[int]) -> Tensor:
    if not has_biases:
        return ops.constant(np.zeros((1, rows), np.float32))
    return _gates(ops.add(weights[2], weights[3]), order)


def _results(emit: Emitter, sequence: Tensor) -> list[Tensor]:
    """[batch, 1, length, width] and the last states [batch, 1, width], as torch has them."""
    y, *last = sequence.outputs()
    return [emit.squeeze(y, 1), *(emit.transpose(state, (1, 0, 2)) for state in last)]


def _way(reverse: bool) -> str:
    return "reverse" if reverse else "forward"


@lowers("aten.lstm.input")
def lstm(
    emit: Emitter, input: Tensor, hx: Sequence[Tensor], params: Sequence[Tensor], has_biases: bool, **layers: Any
) -> list[Tensor]:
    plain = 4 if has_biases else 2
    projects = len(params) == (plain + 1) * layers["num_layers"] * (2 if layers["bidirectional"] else 1)
    order = (1, 0, 2, 3)  # input, forget, cell, output -> forget, input, cell, output

    def one(x: Tensor, index: int, reverse: bool, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        hidden, cell = _state(emit, hx[0], index), _state(emit, hx[1], index)
        recurrent = weights[1]
        width = emit.meta(hx[1]).shape[-1]
        if projects:
            # What is projected is read by the next step alone: its weights take both matrices at once. The state that
            # the first step gets is one that is projected to the given one.
            projection = _values(emit, weights[-1])
            recurrent = out(ops.constant((_values(emit, recurrent) @ projection).astype(np.float32)))
            back = np.linalg.pinv(projection).T.astype(np.float32)
            hidden = ops.matmul(hidden, ops.constant(back), False, False)
        sequence = ops.lstm_sequence(
            x,
            hidden,
            cell,
            _lengths(emit, x),
            _gates(weights[0], order),
            _gates(recurrent, order),
            _bias(emit, weights, has_biases, 4 * width, order),
            width,
            _way(reverse),
        )
        y, h, c = _results(emit, sequence)
        if projects:
            y, h = (out(ops.matmul(value, weights[-1], False, True)) for value in (y, h))
        return y, h, c

    found, (h, c) = _layers(emit, input, params, one, **layers)
    return [found, h, c]


def _values(emit: Emitter, weight: Tensor) -> Any:
    node = out(weight).get_node()
    if node.get_type_name() != "Constant":
        raise emit.refuse("an LSTM with projections whose weights are computed")
    return np.array(node.data, np.float64)


@lowers("aten.gru.input")
def gru(
    emit: Emitter,
    input: Tensor,
    hx: Tensor,
    params: Sequence[Tensor],
    has_biases: bool,
    width: int | None = None,
    **layers: Any,
) -> list[Tensor]:
    width = emit.meta(hx).shape[-1] if width is None else width
    order = (1, 0, 2)  # reset, update, new -> update, reset, new

    def bias(weights: Sequence[Tensor]) -> Tensor:
        """Of both products together for two gates, one by one for the third, whose second is reset."""
        if not has_biases:
            return ops.constant(np.zeros((1, 4 * width), np.float32))
        inner, outer = (ops.split(b, np.int64(0), 3).outputs() for b in weights[2:4])
        parts = [ops.add(inner[1], outer[1]), ops.add(inner[0], outer[0]), inner[2], outer[2]]
        return ops.unsqueeze(ops.concat(parts, 0), np.int64(0))

    def one(x: Tensor, index: int, reverse: bool, weights: Sequence[Tensor]) -> list[Tensor]:
        sequence = ops.gru_sequence(
            x,
            _state(emit, hx, index),
            _lengths(emit, x),
            _gates(weights[0], order),
            _gates(weights[1], order),
            bias(weights),
            width,
            _way(reverse),
            linear_before_reset=True,
        )
        return _results(emit, sequence)

    found, (h,) = _layers(emit, input, params, one, **layers)
    return [found, h]


@lowers("aten.rnn_tanh.input", activation="tanh")
@lowers("aten.rnn_relu.input", activation="relu")
def simple(
    emit: Emitter, activation: str, input: Tensor, hx: Tensor, params: Sequence[Tensor], has_biases: bool, **layers: Any
) -> list[Tensor]:
    width = emit.meta(hx).shape[-1]

    def one(x: Tensor, index: int, reverse: bool, weights: Sequence[Tensor]) -> list[Tensor]:
        sequence = ops.rnn_sequence(
            x,
            _state(emit, hx, index),
            _lengths(emit, x),
            _gates(weights[0], (0,)),
            _gates(weights[1], (0,)),
            _bias(emit, weights, has_biases, width, (0,)),
            width,
            _way(reverse),
            [activation],
        )
        return _results(emit, sequence)

    found, (h,) = _layers(emit, input, params, one, **layers)
    return [found, h]


def _cell(
    emit: Emitter,
    cell: Callable[..., Any],
    order: Sequence[int],
    input: Tensor,
    hidden: Tensor,
    more: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> Tensor:
    """One step, with the weights in OpenVINO's order: what `cell(input, *states, W, R, B, width)` returns."""
    width = emit.meta(hidden).shape[-1]
    gates = [emit.squeeze(_gates(weight, order), 0) for weight in weights[:2]]
    if weights[2] is None:
        bias = ops.constant(np.zeros(len(order) * width, np.float32))
    else:
        bias = emit.squeeze(_bias(emit, weights, True, 0, order), 0)
    return cell(input, hidden, *more, *gates, bias, width)


@lowers("aten.lstm_cell.default")
def lstm_cell(
    emit: Emitter,
    input: Tensor,
    hx: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> list[Tensor]:
    order = (1, 0, 2, 3)
    found = _cell(emit, ops.lstm_cell, order, input, hx[0], [hx[1]], (w_ih, w_hh, b_ih, b_hh))
    return list(found.outputs())


@lowers("aten.gru_cell.default")
def gru_cell(
    emit: Emitter, input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None
) -> Tensor:
    params = [w for w in (w_ih, w_hh, b_ih, b_hh) if w is not None]
    one = {"num_layers": 1, "dropout": 0.0, "train": False, "bidirectional": False, "batch_first": False}
    x, states = (emit.unsqueeze(value, 0) for value in (input, hx))
    found, _ = gru(emit, x, states, params, len(params) == 4, emit.meta(hx).shape[-1], **one)
    return emit.squeeze(found, 0)


@lowers("aten.rnn_tanh_cell.default", activation="tanh")
@lowers("aten.rnn_relu_cell.default", activation="relu")
def simple_cell(
    emit: Emitter,
    activation: str,
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> Tensor:
    def cell(*arguments: Any) -> Tensor:
        return ops.rnn_cell(*arguments, [activation], [], [])

    return _cell(emit, cell, (0,), input, hx, [], (w_ih, w_hh, b_ih, b_hh))
