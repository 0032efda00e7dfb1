# SPDX-License-Identifier: Apache-2.0
"""Functions that generated modules carry at their top, each only where it is used.

This file is a library of source text: `library.py` copies definitions out of it. What is measured
here was measured with MindSpore 2.10 on two x86 cores with AVX512, float32, against PyTorch 2.13.
"""

import mindspore as ms
from mindspore import ops

mean_last = ops.ReduceMean(keep_dims=True)
any_last = ops.ReduceAny(keep_dims=True)
softmax_last = ops.Softmax(-1)
outer = ops.MatMul()
scores = ops.BatchMatMul(transpose_b=True)
mix = ops.BatchMatMul()
add_bias = ops.BiasAdd()
rsqrt = ops.Rsqrt()
sigmoid = ops.Sigmoid()
coarse_tanh = ops.Tanh()
least = -3.4028234663852886e38


def layer_norm(x, weight, bias, eps):
    # Means are spread by an outer product: MindSpore's broadcasting is 10 times slower on CPU, and
    # ops.LayerNorm 5 times slower than this.
    width = x.shape[-1]
    rows = x.reshape((-1, width))
    centred = rows - outer(mean_last(rows, -1), ops.ones((1, width), x.dtype))
    scale = outer(rsqrt(mean_last(centred * centred, -1) + eps), weight.reshape((1, width)))
    return add_bias(centred * scale, bias).reshape(x.shape)


def rms_norm(x, weight, eps):
    width = x.shape[-1]
    rows = x.reshape((-1, width))
    scale = outer(rsqrt(mean_last(rows * rows, -1) + eps), weight.reshape((1, width)))
    return (rows * scale).reshape(x.shape)


def gelu(x):
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


def gelu_tanh(x):
    # 0.5 * (1 + tanh(y)) is sigmoid(2 * y); ops.Tanh is off by 1e-4 near 5.
    return x * sigmoid(x * (x * x * 0.0713548162726009 + 1.5957691216057308))


def tanh(x):
    # ops.Tanh is off by 1e-4 near |x| = 5, but at half the angle that error falls to 1e-7;
    # 2 * sigmoid(2 * x) - 1, no faster, is off by 1.6e-6.
    t = coarse_tanh(x * 0.5)
    return (t + t) / (t * t + 1)


def attend(query, key, value, scale):
    weights = softmax_last(scores(widened(query) * scale, widened(key)))
    return mix(weights.astype(value.dtype), value)


def attend_where(query, key, value, mask, scale):
    # ops.Softmax writes nothing at all if one row is all -inf, so masked scores are the least
    # finite number; and a query that sees no key gets 0, as in torch.
    logits = scores(widened(query) * scale, widened(key))
    hidden = ops.select(mask, ops.zeros_like(mask).astype(logits.dtype), least)
    weights = softmax_last(logits + spread(hidden, logits))
    mixed = mix(weights.astype(value.dtype), value)
    return mixed * spread(any_last(mask, -1).astype(value.dtype), mixed)


def attend_bias(query, key, value, bias, scale):
    # The same for an additive mask, whose -inf means masked.
    logits = scores(widened(query) * scale, widened(key))
    bias = widened(bias)
    # Not ops.Maximum, which would lose NaN.
    bounded = ops.select(bias < least, ops.full_like(bias, least), bias)
    weights = softmax_last(logits + spread(bounded, logits))
    mixed = mix(weights.astype(value.dtype), value)
    return mixed * spread(any_last(bias != -float("inf"), -1).astype(value.dtype), mixed)


def widened(x):
    # torch adds masks and takes softmax in float32.
    return x.astype(ms.float32) if x.dtype == ms.float16 else x


def spread(x, like):
    # Broadcasting inside an operator is 5 to 10 times slower on CPU than beforehand; and what all
    # layers spread alike, such as a mask, Graph mode spreads once.
    return ops.broadcast_to(x, like.shape)


def swap_middle(x):
    # ops.transpose(x, (0, 2, 1, 3)) as a look-up of whole rows: 4 times faster on CPU.
    outer_size, first, second, width = x.shape
    order = ops.arange(outer_size * first * second).reshape((outer_size, first, second))
    order = ops.transpose(order, (0, 2, 1)).reshape((-1,))
    rows = ops.gather(x.reshape((-1, width)), order, 0)
    return rows.reshape((outer_size, second, first, width))


def repeat_heads(x, times):
    batch, heads, length, width = x.shape
    copies = ops.broadcast_to(
        x.reshape((batch, heads, 1, length, width)), (batch, heads, times, length, width)
    )
    return copies.reshape((batch, heads * times, length, width))
