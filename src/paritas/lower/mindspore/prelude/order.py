# SPDX-License-Identifier: Apache-2.0
"""Order as torch has it, for generated modules.

A library of source text, as `attention_and_norm.py` is. Measured with MindSpore 2.10 on x86 CPUs.
"""

import mindspore as ms
from mindspore import Tensor, ops

sort_up = ops.Sort(-1, False)
sort_down = ops.Sort(-1, True)
largest_first = ops.TopK(True)
running_count = ops.CumSum()
any_missing_of = ops.ReduceAny(keep_dims=True)
count_of = ops.ReduceSum(keep_dims=True)


def order_keys(x: Tensor, top: Tensor) -> Tensor:
    # Numbers in the order that torch gives to x, whose NaN is above infinity: ops.TopK has it below
    # all. A wider dtype has a number, `top`, between the largest of x and infinity.
    wide = ops.where(x == float("inf"), top, x.astype(top.dtype))
    return ops.where(x != x, ops.full_like(wide, float("inf")), wide)


def places_in_order(x: Tensor, descending: bool) -> Tensor:
    # Where the elements of the last dimension come from. NaN, which ops.Sort has below all, is
    # sorted as infinity, and then apart from it: ops.Sort keeps the order of equals.
    missing = x != x
    known = ops.where(missing, ops.full_like(x, float("inf")), x)
    if descending:
        places = sort_down(known)[1].astype(ms.int64)
        apart = ops.gather_elements(missing.astype(ms.int32), x.ndim - 1, places)
        return ops.gather_elements(places, x.ndim - 1, sort_down(apart)[1].astype(ms.int64))
    places = sort_up(known)[1].astype(ms.int64)
    apart = ops.gather_elements(missing.astype(ms.int32), x.ndim - 1, places)
    return ops.gather_elements(places, x.ndim - 1, sort_up(apart)[1].astype(ms.int64))


def places_in_order_64(keys: Tensor) -> Tensor:
    # The same from the largest on, for float64, which ops.Sort compares in float32 and ops.TopK does
    # not. ops.TopK keeps no order of equals: so runs of them are sorted by place.
    count = keys.shape[-1]
    axis = keys.ndim - 1
    ordered, places = largest_first(keys, count)
    before = ops.gather(ordered, ops.maximum(ops.arange(count) - 1, 0), axis)
    run = running_count((ordered != before).astype(ms.int64), axis)
    return sort_up(run * count + places)[0] % count


def median_nan(x: Tensor, middle: Tensor, place: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    missing = x != x
    first = ops.expand_dims(ops.argmax(missing.astype(ms.int32), axis), axis)
    some = any_missing_of(missing, axis)
    return ops.where(some, ops.full_like(middle, float("nan")), middle), ops.where(
        some, first, place
    )


def middle_known(x: Tensor, ordered: Tensor, places: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    # Of the elements that are numbers, which come first.
    known = count_of((x == x).astype(ms.int64), axis)
    at = ops.maximum(known - 1, 0) // 2
    return ops.gather_elements(ordered, axis, at), ops.gather_elements(places, axis, at)
