# SPDX-License-Identifier: Apache-2.0
"""Functions that generated modules carry at their top, each only where it is used.

This file is a library of source text: `library.py` copies definitions out of it. What is measured
here was measured with MindSpore 2.10 on two x86 cores with AVX512, float32, against PyTorch 2.13.
"""

import mindspore as ms
from mindspore import Tensor, ops

mean_last = ops.ReduceMean(keep_dims=True)
any_last = ops.ReduceAny(keep_dims=True)
softmax_last = ops.Softmax(-1)
outer_product = ops.MatMul()
scores = ops.BatchMatMul(transpose_b=True)
weighted_sum = ops.BatchMatMul()
add_bias = ops.BiasAdd()
rsqrt = ops.Rsqrt()
sigmoid = ops.Sigmoid()
raw_tanh = ops.Tanh()
MIN_FLOAT32 = -3.4028234663852886e38


def dense(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    # ops.dense spreads its bias in memory of four outputs, which a graph keeps for each layer.
    y = ops.dense(x, weight)
    return add_bias(y.reshape((-1, y.shape[-1])), bias).reshape(y.shape)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    # Means are spread by an outer product: MindSpore's broadcasting is 10 times slower on CPU, and
    # ops.LayerNorm 5 times slower than this.
    width = x.shape[-1]
    rows = x.reshape((-1, width))
    centred = rows - outer_product(mean_last(rows, -1), ops.ones((1, width), x.dtype))
    scale = outer_product(rsqrt(mean_last(centred * centred, -1) + eps), weight.reshape((1, width)))
    return add_bias(centred * scale, bias).reshape(x.shape)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    width = x.shape[-1]
    rows = x.reshape((-1, width))
    scale = outer_product(rsqrt(mean_last(rows * rows, -1) + eps), weight.reshape((1, width)))
    return (rows * scale).reshape(x.shape)


def gelu(x: Tensor) -> Tensor:
    # x * Phi(x) with Phi(x) = sigmoid(x * p(x * x)), exact to 6e-7 for every x: p was fitted to the
    # logit of Phi. ops.gelu and ops.Erf agree with torch no better, and take 3 times as long.
    t = x * x
    p = t * 3.64973302e-09 - 2.68571239e-07
    p = p * t + 7.96504355e-06
    p = p * t - 0.000110677116
    p = p * t - 6.55833028e-05
    p = p * t + 0.0726675879
    p = p * t + 1.59576885
    return x * sigmoid(x * p)


def gelu_tanh(x: Tensor) -> Tensor:
    # 0.5 * (1 + tanh(y)) is sigmoid(2 * y); ops.Tanh is off by 1e-4 near 5.
    return x * sigmoid(x * (x * x * 0.0713548162726009 + 1.5957691216057308))


def tanh(x: Tensor) -> Tensor:
    # ops.Tanh is off by 1e-4 near |x| = 5, but at half the angle that error falls to 1e-7;
    # 2 * sigmoid(2 * x) - 1, no faster, is off by 1.6e-6.
    t = raw_tanh(x * 0.5)
    return (t + t) / (t * t + 1)


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    weights = softmax_last(scores(upcast_half(query) * scale, upcast_half(key)))
    return weighted_sum(weights.astype(value.dtype), value)


def attend_where(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    # ops.Softmax writes nothing at all if one row is all -inf, so masked scores are the least
    # finite number; and a query that sees no key gets 0, as in torch.
    logits = scores(upcast_half(query) * scale, upcast_half(key))
    hidden = ops.select(mask, ops.zeros_like(mask).astype(logits.dtype), MIN_FLOAT32)
    weights = softmax_last(logits + broadcast_like(hidden, logits))
    mixed = weighted_sum(weights.astype(value.dtype), value)
    return mixed * broadcast_like(any_last(mask, -1).astype(value.dtype), mixed)


def attend_bias(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
    # The same for an additive mask, whose -inf means masked.
    logits = scores(upcast_half(query) * scale, upcast_half(key))
    bias = upcast_half(bias)
    # Not ops.Maximum, which would lose NaN.
    bounded = ops.select(bias < MIN_FLOAT32, ops.full_like(bias, MIN_FLOAT32), bias)
    weights = softmax_last(logits + broadcast_like(bounded, logits))
    mixed = weighted_sum(weights.astype(value.dtype), value)
    return mixed * broadcast_like(any_last(bias != -float("inf"), -1).astype(value.dtype), mixed)


def attend_in_parts(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    rows, count = queries_at_once(query, key)
    parts = [
        attend(query[..., at : at + rows, :], key, value, scale) for at in range(0, count, rows)
    ]
    return ops.cat(parts, -2)


def attend_where_in_parts(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float
) -> Tensor:
    rows, count = queries_at_once(query, key)
    parts = [
        attend_where(query[..., at : at + rows, :], key, value, queries_of(mask, at, rows), scale)
        for at in range(0, count, rows)
    ]
    return ops.cat(parts, -2)


def attend_bias_in_parts(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float
) -> Tensor:
    rows, count = queries_at_once(query, key)
    parts = [
        attend_bias(query[..., at : at + rows, :], key, value, queries_of(bias, at, rows), scale)
        for at in range(0, count, rows)
    ]
    return ops.cat(parts, -2)


def queries_at_once(query: Tensor, key: Tensor) -> tuple[int, int]:
    # Scores of 64 MiB stay nearer to the processor than those of all queries: 4096 tokens and 16
    # heads take three quarters of the time, and half the memory or less.
    count = query.shape[-2]
    scored = query.shape[0] * query.shape[-3] * key.shape[-2]
    return max(16777216 // max(scored, 1), (count + 63) // 64, 1), count


def queries_of(mask: Tensor, at: int, rows: int) -> Tensor:
    return mask if mask.ndim < 2 or mask.shape[-2] == 1 else mask[..., at : at + rows, :]


def attention_weights(query: Tensor, key: Tensor, scale: float) -> Tensor:
    return softmax_last(scores(upcast_half(query) * scale, upcast_half(key))).astype(query.dtype)


def attention_weights_where(query: Tensor, key: Tensor, mask: Tensor, scale: float) -> Tensor:
    # As `attend_where`, before the values are weighed: some of the weights are dropped in training.
    logits = scores(upcast_half(query) * scale, upcast_half(key))
    hidden = ops.select(mask, ops.zeros_like(mask).astype(logits.dtype), MIN_FLOAT32)
    weights = softmax_last(logits + broadcast_like(hidden, logits))
    return (weights * broadcast_like(any_last(mask, -1).astype(weights.dtype), weights)).astype(
        query.dtype
    )


def attention_weights_bias(query: Tensor, key: Tensor, bias: Tensor, scale: float) -> Tensor:
    logits = scores(upcast_half(query) * scale, upcast_half(key))
    bias = upcast_half(bias)
    bounded = ops.select(bias < MIN_FLOAT32, ops.full_like(bias, MIN_FLOAT32), bias)
    weights = softmax_last(logits + broadcast_like(bounded, logits))
    seen = any_last(bias != -float("inf"), -1).astype(weights.dtype)
    return (weights * broadcast_like(seen, weights)).astype(query.dtype)


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    training: bool,
) -> Tensor:
    # Over rows of a channel: of [batch, channels, ...], [channels, all else].
    channels = x.shape[1]
    rows = ops.reshape(x, (x.shape[0], channels, -1))
    if training:
        count = rows.shape[0] * rows.shape[2]
        mean = mean_last(mean_last(rows, 2), 0)
        centred = rows - mean
        var = mean_last(mean_last(centred * centred, 2), 0)
        seen = ops.stop_gradient(ops.reshape(mean, (channels,)))
        spread = ops.stop_gradient(ops.reshape(var, (channels,))) * (count / (count - 1))
        ops.assign(running_mean, running_mean * (1 - momentum) + seen * momentum)
        ops.assign(running_var, running_var * (1 - momentum) + spread * momentum)
    else:
        mean = ops.reshape(running_mean, (1, channels, 1))
        var = ops.reshape(running_var, (1, channels, 1))
        centred = rows - mean
    scale = rsqrt(var + eps) * ops.reshape(weight, (1, channels, 1))
    return ops.reshape(centred * scale + ops.reshape(bias, (1, channels, 1)), x.shape)


def dropout_mask(like: Tensor, p: float, training: bool) -> Tensor:
    return ops.dropout(ops.ones_like(like), p, training)


def upcast_half(x: Tensor) -> Tensor:
    # torch adds masks and takes softmax in float32.
    return x.astype(ms.float32) if x.dtype == ms.float16 else x


def broadcast_like(x: Tensor, like: Tensor) -> Tensor:
    # Broadcasting inside an operator is 5 to 10 times slower on CPU than beforehand; and what all
    # layers spread alike, such as a mask, Graph mode spreads once.
    return ops.broadcast_to(x, like.shape)


def swap_heads(x: Tensor) -> Tensor:
    # ops.transpose(x, (0, 2, 1, 3)) as a look-up of whole rows: 4 times faster on CPU.
    outer_size, first, second, width = x.shape
    order = ops.arange(outer_size * first * second).reshape((outer_size, first, second))
    order = ops.transpose(order, (0, 2, 1)).reshape((-1,))
    rows = ops.gather(x.reshape((-1, width)), order, 0)
    return rows.reshape((outer_size, second, first, width))


def repeat_heads(x: Tensor, times: int) -> Tensor:
    batch, heads, length, width = x.shape
    copies = ops.broadcast_to(
        x.reshape((batch, heads, 1, length, width)), (batch, heads, times, length, width)
    )
    return copies.reshape((batch, heads * times, length, width))
