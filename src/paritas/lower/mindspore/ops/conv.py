# SPDX-License-Identifier: Apache-2.0
"""Convolutions.

MindSpore's CPU kernel is up to 250 times slower than torch's, because of the layout it hands to oneDNN;
a module with `ops.Conv2D` in it runs with oneDNN capped (run/mindspore.py), which slows its matrix products.
So what can be one matrix product is: patch embeddings (stride equal to the kernel) and 1-d convolutions.
"""

from paritas.lower.registry import lowers


@lowers("mindspore", "aten.conv2d.default")
def conv2d(
    emit, input, weight, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1
):
    """conv2d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=[1, 1], SymInt[2] padding=[0, 0], SymInt[2] dilation=[1, 1], SymInt groups=1) -> Tensor"""  # noqa: E501
    if (nothing := emit.nothing()) is not None:
        return nothing
    kernel = tuple(int(k) for k in weight.shape[2:])
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    unbatched = input.rank == 3
    if unbatched:
        input = emit.typed(emit.call("ops.expand_dims", input, 0), shape=(1, *input.shape))
    plain = groups == 1 and padding == (0, 0) and dilation == (1, 1)
    if (
        emit.target == "cpu"
        and plain
        and kernel == stride
        and _divides(input, kernel)
        and not unbatched
    ):
        return _patches(emit, input, weight, bias, kernel)
    result = _convolve(emit, input, weight, bias, kernel, stride, padding, dilation, groups)
    return emit.call("ops.squeeze", result, 0) if unbatched else result


def _pair(value):
    value = [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]
    return (value[0], value[0]) if len(value) == 1 else tuple(value)


def _divides(input, kernel):
    # A remainder at the edge, which the convolution leaves out, would have to be cut off first.
    return all(
        isinstance(size, int) and size % k == 0
        for size, k in zip(input.shape[2:], kernel, strict=True)
    )


def _convolve(emit, input, weight, bias, kernel, stride, padding, dilation, groups):
    options = {
        "kernel_size": kernel, "pad_mode": "pad", "pad": (padding[0], padding[0], padding[1], padding[1]),
        "stride": stride, "dilation": dilation, "group": groups,
    }  # fmt: skip
    result = emit.prim("ops.Conv2D", int(weight.shape[0]), **options)(input, weight)
    return result if bias is None else emit.prim("ops.BiasAdd")(result, bias)


def _patches(emit, input, weight, bias, kernel):
    """Cut the image into patches and multiply: [B, C, h*k, w*k] -> [B*h*w, C*k*k] @ [out, C*k*k].T."""
    batch, channels = emit.dims(input.shape[:2])
    rows, columns = (emit.size(size) for size in emit.out.shape[2:])
    height, width = kernel
    cut = emit.call("ops.reshape", input, (batch, channels, rows, height, columns, width))
    outputs, depth = int(weight.shape[0]), int(weight.shape[1]) * height * width
    patches = emit.call(
        "ops.reshape", emit.call("ops.transpose", cut, (0, 2, 4, 1, 3, 5)), (-1, depth)
    )
    patches = emit.let(patches, "patches")
    flat = emit.let(emit.call("ops.reshape", weight, (outputs, depth)), "kernel")
    product = emit.call("ops.dense", patches, flat, *([] if bias is None else [bias]))
    grid = emit.let(emit.call("ops.reshape", product, (-1, rows, columns, outputs)), "grid")
    return emit.call("ops.transpose", grid, (0, 3, 1, 2))


@lowers("mindspore", "aten.conv1d.default")
def conv1d(emit, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """conv1d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[1] stride=[1], SymInt[1] padding=[0], SymInt[1] dilation=[1], SymInt groups=1) -> Tensor"""  # noqa: E501
    if (nothing := emit.nothing()) is not None:
        return nothing
    step, pad, spread = (
        int(v[0]) if isinstance(v, (list, tuple)) else int(v) for v in (stride, padding, dilation)
    )
    unbatched = input.rank == 2
    if unbatched:
        input = emit.typed(emit.call("ops.expand_dims", input, 0), shape=(1, *input.shape))
    if emit.target == "cpu" and groups == 1:
        result = emit.help("convolve_1d", input, weight, step, pad, spread)
        if bias is not None:
            result = emit.prim("ops.BiasAdd")(result, bias)
    else:
        wide, kernel = (
            emit.call("ops.expand_dims", input, 2),
            emit.call("ops.expand_dims", weight, 2),
        )
        taps = (1, int(weight.shape[2]))
        kernel = emit.typed(kernel, shape=(weight.shape[0], weight.shape[1], 1, weight.shape[2]))
        result = _convolve(emit, wide, kernel, bias, taps, (1, step), (0, pad), (1, spread), groups)
        result = emit.call("ops.squeeze", result, 2)
    return emit.call("ops.squeeze", result, 0) if unbatched else result
