# SPDX-License-Identifier: Apache-2.0
"""Recurrent networks: layers and directions one after the other, all steps of one in one loop.

What the inputs give to the gates is one product for all steps. LSTMs are MindSpore's own kernel, whose CPU
form is oneDNN's, as torch's is.
"""

from collections.abc import Callable, Sequence
from typing import Any

from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Value


def _first_axis(emit: Emitter, x: Value, size: int) -> list[Value]:
    """(layers and directions, batch, width) as one state each."""
    x = emit.let(x, "state")
    return [emit.typed(Value(f"{x}[{i}]"), like=x, shape=x.shape[1:]) for i in range(size)]


def _swapped(emit: Emitter, x: Value) -> Value:
    return Value(emit.call("ops.transpose", x, (1, 0, 2)).text, x.dtype)


def _reverse(emit: Emitter, x: Value) -> Value:
    return Value(emit.call("ops.flip", x, (0,)).text, x.dtype)


def _run(
    emit: Emitter,
    input: Value,
    params: Sequence[Value],
    one: Callable[..., Any],
    *,
    num_layers: int,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    **_: object,
) -> tuple[Any, Any]:
    """`one(x, index, weights)` for every layer and direction; the output and the last states."""
    if input.rank != 3:
        raise emit.refuse("a recurrent network without batch")
    if train:
        raise emit.refuse("a recurrent network in training mode")
    directions = 2 if bidirectional else 1
    count = len(params) // (directions * num_layers)
    x = emit.let(_swapped(emit, input) if batch_first else input, "sequence")
    last = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            weights = params[count * index : count * (index + 1)]
            given = emit.let(_reverse(emit, x), "reversed_sequence") if direction else x
            out, final = one(given, index, weights)
            outputs.append(emit.let(_reverse(emit, out), "backward") if direction else out)
            last.append(final)
        x = outputs[0]
        if bidirectional:
            x = emit.let(emit.call("ops.cat", tuple(outputs), 2), "sequence")
    return (_swapped(emit, x) if batch_first else x), last


def _in_float32(
    emit: Emitter, write: Callable[..., Any], input: Value, states: Sequence[Value], params: Sequence[Value]
) -> Value:
    """`write(input, states, params)`, in float32 at half precision: torch's own steps are there."""
    if input.dtype != "float16":
        return write(input, states, params)
    wide = ([emit.cast(x, "float32") for x in values] for values in (states, params))
    found = emit.let(write(emit.cast(input, "float32"), *wide), "results")
    parts = [emit.cast(Value(f"{found}[{i}]", "float32"), "float16").text for i in range(1 + len(states))]
    return Value(f"({', '.join(parts)})")


def _bias(emit: Emitter, weights: Sequence[Value], which: int) -> Value:
    if len(weights) >= 4:
        return weights[2 + which]
    return emit.call("ops.zeros", (emit.size(weights[0].shape[0]),), emit.dtype(weights[0].dtype))


@lowers("aten.lstm.input")
def lstm(
    emit: Emitter, input: Value, hx: Sequence[Value], params: Sequence[Value], has_biases: bool, **layers: Any
) -> Value:
    if emit.target != "cpu":
        raise emit.refuse("ops.LSTM has kernels for CPU and GPU only")
    total = layers["num_layers"] * (2 if layers["bidirectional"] else 1)

    def write(input: Value, hx: Sequence[Value], params: Sequence[Value]) -> Value:
        states, cells = (_first_axis(emit, x, total) for x in hx)
        # The kernel knows no projections, and float32 only.
        projected = hx[0].shape[-1] != hx[1].shape[-1]
        one = _lstm_steps if projected or input.dtype != "float32" else _lstm_kernel

        def run(x: Value, index: int, weights: Sequence[Value]) -> tuple[Any, Any]:
            return one(emit, x, states[index], cells[index], weights, has_biases, projected)

        out, last = _run(emit, input, params, run, **layers)
        h, c = (emit.call("ops.cat", tuple(Value(pair[i]) for pair in last), 0) for i in (0, 1))
        return Value(f"({out}, {h}, {c})")

    return _in_float32(emit, write, input, hx, params)


def _lstm_kernel(
    emit: Emitter, x: Value, state: Value, cell: Value, weights: Sequence[Value], has_biases: bool, projected: bool
) -> tuple[Any, Any]:
    wide, inputs = weights[0].shape
    parts = [*weights[:2]]
    if has_biases:  # the kernel has one bias
        parts.append(emit.infix("+", weights[2], weights[3]))
    flat = emit.call("ops.cat", tuple(emit.call("ops.reshape", p, (-1, 1, 1)) for p in parts), 0)
    step = emit.prim("ops.LSTM", inputs, wide // 4, 1, has_biases, False, 0.0)
    h, c = (emit.call("ops.expand_dims", s, 0) for s in (state, cell))
    out = emit.let(step(x, h, c, flat), "lstm")
    return emit.typed(Value(f"{out}[0]"), dtype=x.dtype), (f"{out}[1]", f"{out}[2]")


def _lstm_steps(emit: Emitter, x: Value, state: Any, cell: Any, weights: Any, has_biases: Any, projected: Any) -> Any:
    given = emit.infix("+", emit.prelude("project", x, weights[0]), _bias(emit, weights, 0))
    arguments = [given, state, cell, weights[1], _bias(emit, weights, 1)]
    if projected:
        text = emit.prelude("lstm_steps_projected", *arguments, weights[-1])
    else:
        text = emit.prelude("lstm_steps", *arguments)
    out = emit.let(text, "lstm")
    last = tuple(emit.call("ops.expand_dims", Value(f"{out}[{i}]"), 0).text for i in (1, 2))
    return emit.typed(Value(f"{out}[0]"), dtype=x.dtype), last


@lowers("aten.gru.input", steps="gru_steps")
@lowers("aten.rnn_tanh.input", steps="rnn_tanh_steps")
@lowers("aten.rnn_relu.input", steps="rnn_relu_steps")
def simple(emit: Emitter, steps: str, input: Value, hx: Value, params: Sequence[Value], **layers: Any) -> Value:
    def write(input: Value, hx: Sequence[Value], params: Sequence[Value]) -> Value:
        states = _first_axis(emit, hx[0], layers["num_layers"] * (2 if layers["bidirectional"] else 1))

        def one(x: Value, index: int, weights: Sequence[Value]) -> tuple[Value | str, Value | str]:
            given = emit.infix("+", emit.prelude("project", x, weights[0]), _bias(emit, weights, 0))
            text = emit.prelude(steps, given, states[index], weights[1], _bias(emit, weights, 1))
            out = emit.let(text, "outputs")
            return emit.typed(Value(f"{out}[0]"), dtype=x.dtype), f"{out}[1]"

        out, last = _run(emit, input, params, one, **layers)
        return Value(f"({out}, {emit.call('ops.stack', tuple(Value(x) for x in last), 0)})")

    return _in_float32(emit, write, input, [hx], params)
