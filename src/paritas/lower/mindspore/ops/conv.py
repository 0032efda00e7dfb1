# SPDX-License-Identifier: Apache-2.0
"""Convolutions.

MindSpore's CPU kernel is up to 250 times slower than torch's, because of the layout it hands to oneDNN.
Patch embeddings (stride equal to the kernel) are one matrix product; 1-d convolutions become one too.
"""

from paritas.lower.mindspore.source import Value
from paritas.lower.registry import lowers


@lowers("mindspore", "aten.conv2d.default")
def conv2d(emit, input, weight, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    """conv2d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=[1, 1], SymInt[2] padding=[0, 0], SymInt[2] dilation=[1, 1], SymInt groups=1) -> Tensor"""  # noqa: E501
    kernel = tuple(int(k) for k in weight.shape[2:])
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    sizes = emit.out.shape[2:]
    exact = all(
        isinstance(i, int) and isinstance(o, int) and i == o * k
        for i, o, k in zip(input.shape[2:], sizes, kernel, strict=True)
    )
    if emit.target == "cpu" and kernel == stride and exact and groups == 1 and padding == (0, 0) and dilation == (1, 1):
        return _patches(emit, input, weight, bias, kernel)
    kwargs = {
        "kernel_size": kernel, "pad_mode": "pad", "pad": (padding[0], padding[0], padding[1], padding[1]),
        "stride": stride, "dilation": dilation, "group": groups,
    }  # fmt: skip
    result = emit.prim("ops.Conv2D", int(weight.shape[0]), **kwargs)(input, weight)
    return result if bias is None else emit.prim("ops.BiasAdd")(result, bias)


def _pair(value):
    value = [int(v) for v in value]
    return (value[0], value[0]) if len(value) == 1 else tuple(value)


def _patches(emit, input, weight, bias, kernel):
    """Cut the image into patches and multiply: [B, C, h*k, w*k] -> [B*h*w, C*k*k] @ [out, C*k*k].T."""
    batch, channels = input.shape[:2]
    rows, columns = emit.out.shape[2:]
    height, width = kernel
    cut = emit.call("ops.reshape", input, (*emit.dims([batch, channels]), rows, height, columns, width))
    moved = emit.call("ops.transpose", cut, (0, 2, 4, 1, 3, 5))
    depth = int(weight.shape[1]) * height * width
    patches = emit.let(emit.call("ops.reshape", moved, (-1, depth)), "patches")
    flat = emit.call("ops.reshape", weight, (int(weight.shape[0]), depth))
    product = emit.call("ops.dense", patches, flat) if bias is None else emit.call("ops.dense", patches, flat, bias)
    grid = emit.call("ops.reshape", product, (-1, rows, columns, int(weight.shape[0])))
    return emit.call("ops.transpose", grid, (0, 3, 1, 2))


@lowers("mindspore", "aten.conv1d.default")
def conv1d(emit, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """conv1d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[1] stride=1, SymInt[1] padding=0, SymInt[1] dilation=1, SymInt groups=1) -> Tensor"""  # noqa: E501
    step, pad, spread = (int(v[0]) if isinstance(v, (list, tuple)) else int(v) for v in (stride, padding, dilation))
    out_channels, in_channels, kernel = (int(s) for s in weight.shape)
    if emit.target == "cpu" and groups == 1 and input.rank == 3:
        return _conv1d_as_matmul(emit, input, weight, bias, step, pad, spread)
    wide = emit.call("ops.expand_dims", input, 2)
    kwargs = {
        "kernel_size": (1, kernel), "pad_mode": "pad", "pad": (0, 0, pad, pad), "stride": (1, step),
        "dilation": (1, spread), "group": groups,
    }  # fmt: skip
    result = emit.prim("ops.Conv2D", out_channels, **kwargs)(wide, emit.call("ops.expand_dims", weight, 2))
    result = result if bias is None else emit.prim("ops.BiasAdd")(result, bias)
    return emit.call("ops.squeeze", result, 2)


def _conv1d_as_matmul(emit, input, weight, bias, step, pad, spread):
    """One product over channels and taps: the shifted inputs side by side, [B, C*K, L] -> [B, out, L]."""
    out_channels, in_channels, kernel = (int(s) for s in weight.shape)
    batch, channels, length = (*input.shape[:1], in_channels, emit.out.shape[-1])
    if pad:
        edge = emit.call("ops.zeros", (*emit.dims([batch]), channels, pad), emit.dtype(input.dtype))
        edge = emit.let(edge, "edge")
        input = emit.call("ops.cat", (edge, input, edge), 2)
    padded = emit.let(input, "padded")
    taps = []
    for tap in range(kernel):
        start, end = tap * spread, emit.size(tap * spread + (length - 1) * step + 1)
        stepped = f":{step}" if step != 1 else ""
        taps.append(Value(f"{padded}[:, :, {start}:{end}{stepped}]"))
    columns = emit.let(emit.call("ops.cat", tuple(taps), 1) if kernel > 1 else taps[0], "columns")
    flat = emit.call("ops.reshape", emit.call("ops.transpose", weight, (0, 2, 1)), (1, out_channels, kernel * channels))
    flat = emit.call("ops.broadcast_to", flat, (*emit.dims([batch]), out_channels, kernel * channels))
    product = emit.prim("ops.BatchMatMul")(flat, columns)
    if bias is None:
        return product
    return emit.infix("+", product, emit.call("ops.reshape", bias, (1, out_channels, 1)))
