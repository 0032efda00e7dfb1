# SPDX-License-Identifier: Apache-2.0
"""Pooling over windows."""

import numpy as np
import openvino.opset16 as ops

from paritas.lower.openvino.emit import rank_of
from paritas.lower.openvino.ops.conv import each
from paritas.lower.registry import lowers, schema_of


def _batched(emit, x, count):
    single = rank_of(x) == count + 1
    return (emit.unsqueeze(x, 0) if single else x), single


def max_pooled(emit, x, count, kernel, stride, padding, dilation, ceil_mode):
    x, single = _batched(emit, x, count)
    kernel = each(kernel, count)
    stride = each(stride, count) if stride else kernel
    padding, dilation = each(padding, count), each(dilation, count)
    rounding = "ceil_torch" if ceil_mode else "floor"
    found = ops.max_pool(x, stride, dilation, padding, padding, kernel, rounding)
    values, places = found.output(0), found.output(1)
    if single:
        values, places = emit.squeeze(values, 0), emit.squeeze(places, 0)
    return values, places


def _max_pool(count):
    def lowering(emit, self, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False):
        return max_pooled(emit, self, count, kernel_size, stride, padding, dilation, ceil_mode)[0]

    lowering.__doc__ = schema_of(f"aten.max_pool{count}d.default")
    lowering.__name__ = lowering.__qualname__ = f"max_pool{count}d"
    lowers("openvino", f"aten.max_pool{count}d.default")(lowering)


def _avg_pool(count):
    def lowering(
        emit,
        self,
        kernel_size,
        stride=(),
        padding=0,
        ceil_mode=False,
        count_include_pad=True,
        divisor_override=None,
    ):
        x, single = _batched(emit, self, count)
        kernel = each(kernel_size, count)
        step = each(stride, count) if stride else kernel
        pads = each(padding, count)
        rounding = "ceil_torch" if ceil_mode else "floor"
        found = ops.avg_pool(x, step, pads, pads, kernel, not count_include_pad, rounding)
        if divisor_override is not None:
            if ceil_mode or (any(pads) and not count_include_pad):
                raise emit.refuse("a divisor of its own where windows reach beyond the edge")
            found = ops.multiply(found, np.float32(np.prod(kernel) / divisor_override))
        return emit.squeeze(found, 0) if single else found

    lowering.__doc__ = schema_of(f"aten.avg_pool{count}d.default")
    lowering.__name__ = lowering.__qualname__ = f"avg_pool{count}d"
    lowers("openvino", f"aten.avg_pool{count}d.default")(lowering)


def _adaptive(count):
    def lowering(emit, self, output_size):
        rank = rank_of(self)
        wanted, own = each(output_size, count), emit.sizes(self)[rank - count :]
        if all(size == 1 for size in wanted):
            return ops.reduce_mean(self, emit.array(range(rank - count, rank)), True)
        x, single = _batched(emit, self, count)
        if all(
            isinstance(a, int) and isinstance(b, int) and a % b == 0 for a, b in zip(own, wanted, strict=True)
        ):
            kernel = [a // b for a, b in zip(own, wanted, strict=True)]
            found = ops.avg_pool(x, kernel, [0] * count, [0] * count, kernel, False, "floor")
        else:
            found = ops.adaptive_avg_pool(x, emit.dims(wanted))
        return emit.squeeze(found, 0) if single else found

    lowering.__doc__ = schema_of(f"aten.adaptive_avg_pool{count}d.default")
    lowering.__name__ = lowering.__qualname__ = f"adaptive_avg_pool{count}d"
    lowers("openvino", f"aten.adaptive_avg_pool{count}d.default")(lowering)


for _count in (1, 2, 3):
    _max_pool(_count)
    _avg_pool(_count)
    _adaptive(_count)
