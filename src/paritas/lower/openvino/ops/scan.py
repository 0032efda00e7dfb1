# SPDX-License-Identifier: Apache-2.0
"""Recurrences over tokens: a loop whose body is one token."""

from collections.abc import Mapping

import numpy as np
import openvino
import openvino.opset16 as ops

from paritas.lower.openvino.emit import Emitter, Tensor, out
from paritas.lower.openvino.ops.registry import lowers


@lowers("paritas.selective_scan.default")
def selective_scan(
    emit: Emitter, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> list[Tensor]:
    """x [batch, tokens, heads, width], dt [batch, tokens, heads], A [heads, 1 or states], B and C [batch, tokens, 1 or
    heads, states], state [batch, heads, width, states]."""
    body = _Body({"x": x, "dt": dt, "B": B, "C": C}, state, {"A": A})
    step = emit.unsqueeze(body.token["dt"], 2)
    decay = emit.unsqueeze(ops.exp(ops.multiply(step, body.constant["A"])), 2)
    read = emit.unsqueeze(ops.multiply(step, body.token["B"]), 2)
    now = ops.add(ops.multiply(body.state, decay), ops.multiply(read, emit.unsqueeze(body.token["x"], 3)))
    found = ops.reduce_sum(ops.multiply(now, emit.unsqueeze(body.token["C"], 2)), np.array([-1], np.int64), False)
    return body.looped(now, found)


@lowers("paritas.gated_delta_rule.default")
def gated_delta_rule(
    emit: Emitter, query: Tensor, key: Tensor, value: Tensor, decay: Tensor, beta: Tensor, state: Tensor
) -> list[Tensor]:
    """query, key [batch, tokens, heads, keys], value [batch, tokens, heads, width], decay, beta [batch, tokens, heads],
    state [batch, heads, keys, width]."""
    body = _Body({"query": query, "key": key, "value": value, "decay": decay, "beta": beta}, state, {})
    asked, by = emit.unsqueeze(body.token["query"], 3), emit.unsqueeze(body.token["key"], 3)
    kept = ops.multiply(body.state, emit.unsqueeze(ops.exp(body.token["decay"]), 2, 3))
    known = ops.reduce_sum(ops.multiply(kept, by), np.array([-2], np.int64), False)
    more = ops.multiply(ops.subtract(body.token["value"], known), emit.unsqueeze(body.token["beta"], 2))
    now = ops.add(kept, ops.multiply(by, emit.unsqueeze(more, 2)))
    return body.looped(now, ops.reduce_sum(ops.multiply(now, asked), np.array([-2], np.int64), False))


class _Body:
    """What a loop over the tokens (axis 1) computes for one of them.

    token: what belongs to this one, without the axis. state: what the one before has left. constant: the same for all.
    """

    def __init__(self, sliced: Mapping[str, Tensor], state: Tensor, constants: Mapping[str, Tensor]) -> None:
        self._sliced, self._constants, self._begins = sliced, constants, state
        self._slices = {name: _parameter(value, one=1) for name, value in sliced.items()}
        self.token = {name: out(ops.squeeze(p, np.int64(1))) for name, p in self._slices.items()}
        self.state = _parameter(state)
        self.constant = {name: _parameter(value) for name, value in constants.items()}

    def looped(self, state: Tensor, found: Tensor) -> list[Tensor]:
        """[what was found for each token, the last state], of a loop over all of them."""
        found = ops.unsqueeze(found, np.int64(1))
        true = ops.constant(np.array([True]))
        parameters = [*self._slices.values(), self.state, *self.constant.values()]
        body = openvino.Model([true, state, found], parameters, "token")
        first = next(iter(self._sliced.values()))
        length = ops.gather(ops.shape_of(first, output_type="i32"), np.int32(1), np.int32(0))
        loop = ops.loop(length, ops.constant(np.bool_(True)))
        loop.set_function(body)
        loop.set_special_body_ports([-1, 0])
        for name, parameter in self._slices.items():
            loop.set_sliced_input(parameter, out(self._sliced[name]), 0, 1, 1, -1, 1)
        loop.set_merged_input(self.state, out(self._begins), out(state))
        for name, parameter in self.constant.items():
            loop.set_invariant_input(parameter, out(self._constants[name]))
        return [loop.get_concatenated_slices(out(found), 0, 1, 1, -1, 1), loop.get_iter_value(out(state), -1)]


def _parameter(value: Tensor, one: int | None = None) -> openvino.Node:
    """Of a body, for such a tensor; `one`: an axis that is cut to single slices."""
    shape = openvino.PartialShape(list(out(value).get_partial_shape()))
    if one is not None:
        shape[one] = 1
    return ops.parameter(shape, out(value).get_element_type())
