# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers of free length: torch finds their shapes by unrolling all steps, which fixes how many there are."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch._subclasses.fake_impls import get_fast_op_impls

from paritas.capture.patches import around

_aten = torch.ops.aten


def _lstm(input: Any, hx: Any, params: Any, *how: Any, **more: Any) -> Any:
    return _out(input, hx[0], params, how), hx[0].new_empty(hx[0].shape), hx[1].new_empty(hx[1].shape)


def _simple(input: Any, hx: Any, params: Any, *how: Any, **more: Any) -> Any:
    return _out(input, hx, params, how), hx.new_empty(hx.shape)


def _out(input: Any, state: Any, params: Any, how: tuple[Any, ...]) -> Any:
    batch = input.shape[0 if how[5] else 1]
    if input.shape[2] != params[0].shape[1] or batch != state.shape[1]:  # asked so that sizes are known to be equal
        raise RuntimeError(
            f"input {tuple(input.shape)} does not fit weights for {params[0].shape[1]} features and states for a batch "
            f"of {state.shape[1]}"
        )
    directions = 2 if how[4] else 1
    return input.new_empty((*input.shape[:2], directions * state.shape[-1]))


def _under(shapes: Any, mode: Any, *args: Any, **kwargs: Any) -> Any:
    with mode:
        return shapes(*args, **kwargs)


_SHAPES = {
    _aten.lstm.input: _lstm,
    _aten.gru.input: _simple,
    _aten.rnn_tanh.input: _simple,
    _aten.rnn_relu.input: _simple,
}

#: Where torch keeps its own loops over the steps (torch 2.13, torch/_decomp/decompositions.py, lstm_impl).
_KEYS = (torch._C.DispatchKey.Autograd, torch._C.DispatchKey.CompositeImplicitAutograd)


@around
@contextlib.contextmanager
def shapes_of_recurrent_layers() -> Iterator[None]:
    """While it is open, the shapes of a recurrent layer are those that follow from its input and states."""
    own = {op: dict(op.py_kernels) for op in _SHAPES}
    # Asked first for tensors of free size, also where torch has put rules of its own over the kernels for a while.
    fast = get_fast_op_impls()
    fast |= {op: functools.partial(_under, shapes) for op, shapes in _SHAPES.items()}
    for op, shapes in _SHAPES.items():
        op.py_kernels.update(dict.fromkeys(_KEYS, shapes))
        op._dispatch_cache.clear()
    try:
        yield
    finally:
        for op in _SHAPES:
            del fast[op]
        for op, kernels in own.items():
            op.py_kernels.clear()
            op.py_kernels.update(kernels)
            op._dispatch_cache.clear()
