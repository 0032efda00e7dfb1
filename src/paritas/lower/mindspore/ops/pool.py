# SPDX-License-Identifier: Apache-2.0
"""Pooling and resizing of images."""

from paritas.lower.mindspore.ops.create import filled
from paritas.lower.registry import lowers


def _pair(value):
    value = [value] if isinstance(value, int) else list(value)
    return tuple(value * 2 if len(value) == 1 else value)


def _padded(emit, input, padding, value):
    """Zeros or -inf around the image: MindSpore's pools know fewer kinds of padding than torch."""
    high, wide = padding
    x = input
    for dim, size in ((2, high), (3, wide)):
        if size:
            shape = [*x.shape[:dim], size, *x.shape[dim + 1 :]]
            edge = emit.let(filled(emit, value, shape=shape), "edge")
            x = emit.typed(
                emit.call("ops.cat", (edge, x, edge), dim),
                dtype=input.dtype,
                shape=[*x.shape[:dim], x.shape[dim] + 2 * size, *x.shape[dim + 1 :]],
            )
    return x


def _as_image(emit, input):
    if input.rank == 4:
        return input
    return emit.typed(
        emit.call("ops.expand_dims", input, 0), dtype=input.dtype, shape=(1, *input.shape)
    )


def _back(emit, out, input):
    return out if input.rank == 4 else emit.call("ops.squeeze", out, 0)


@lowers("mindspore", "aten.max_pool2d.default")
def max_pool2d(
    emit, self, kernel_size, stride=(), padding=(0, 0), dilation=(1, 1), ceil_mode=False
):
    """max_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, int[2] dilation=1, bool ceil_mode=False) -> Tensor"""  # noqa: E501
    if ceil_mode or _pair(dilation) != (1, 1):
        raise emit.refuse("max_pool2d with ceil_mode or dilation")
    x = _padded(emit, _as_image(emit, self), _pair(padding), -float("inf"))
    out = emit.prim("ops.MaxPool", _pair(kernel_size), _pair(stride or kernel_size))(x)
    return _back(emit, out, self)


@lowers("mindspore", "aten.avg_pool2d.default")
def avg_pool2d(
    emit,
    self,
    kernel_size,
    stride=(),
    padding=(0, 0),
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):
    """avg_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, bool ceil_mode=False, bool count_include_pad=True, int? divisor_override=None) -> Tensor"""  # noqa: E501
    padding = _pair(padding)
    if ceil_mode or divisor_override is not None or (padding != (0, 0) and not count_include_pad):
        raise emit.refuse(
            "avg_pool2d with ceil_mode, divisor_override, or padding that does not count"
        )
    x = _padded(emit, _as_image(emit, self), padding, 0)
    return _back(
        emit, emit.prim("ops.AvgPool", _pair(kernel_size), _pair(stride or kernel_size))(x), self
    )


@lowers("mindspore", "aten.max_pool1d.default")
def max_pool1d(emit, self, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False):
    """max_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=[0], int[1] dilation=[1], bool ceil_mode=False) -> Tensor"""  # noqa: E501
    wide = _wide(emit, self)
    kernel, step, edge, spread = (
        _one(v) for v in (kernel_size, stride or kernel_size, padding, dilation)
    )
    if ceil_mode or spread != 1:
        raise emit.refuse("max_pool1d with ceil_mode or dilation")
    x = _padded(emit, wide, (0, edge), -float("inf"))
    return _narrow(emit, emit.prim("ops.MaxPool", (1, kernel), (1, step))(x))


@lowers("mindspore", "aten.avg_pool1d.default")
def avg_pool1d(
    emit, self, kernel_size, stride=(), padding=0, ceil_mode=False, count_include_pad=True
):
    """avg_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=[0], bool ceil_mode=False, bool count_include_pad=True) -> Tensor"""  # noqa: E501
    kernel, step, edge = (_one(v) for v in (kernel_size, stride or kernel_size, padding))
    if ceil_mode or (edge and not count_include_pad):
        raise emit.refuse("avg_pool1d with ceil_mode, or padding that does not count")
    x = _padded(emit, _wide(emit, self), (0, edge), 0)
    return _narrow(emit, emit.prim("ops.AvgPool", (1, kernel), (1, step))(x))


def _one(value):
    return int(value[0]) if isinstance(value, (list, tuple)) else int(value)


def _wide(emit, self):
    """[N, C, L] or [C, L] as an image of height 1."""
    shape = (1,) * (3 - self.rank) + self.shape
    shape = (*shape[:2], 1, shape[2])
    return emit.typed(
        emit.call("ops.reshape", self, emit.dims(shape)), dtype=self.dtype, shape=shape
    )


def _narrow(emit, out):
    return emit.call("ops.reshape", out, emit.dims(emit.out.shape))


@lowers("mindspore", "aten.adaptive_avg_pool2d.default")
def adaptive_avg_pool2d(emit, self, output_size):
    """adaptive_avg_pool2d(Tensor self, SymInt[2] output_size) -> Tensor"""
    rows, columns = (int(s) for s in output_size)
    height, width = self.shape[-2:]
    if (rows, columns) == (1, 1):
        return emit.prim("ops.ReduceMean", keep_dims=True)(self, (self.rank - 2, self.rank - 1))
    if not (
        isinstance(height, int)
        and isinstance(width, int)
        and height % rows == 0
        and width % columns == 0
    ):
        raise emit.refuse(
            f"adaptive_avg_pool2d from {height}x{width} to {rows}x{columns}: windows of unequal size"
        )
    shape = (*emit.dims(self.shape[:-2]), rows, height // rows, columns, width // columns)
    last = self.rank + 1
    return emit.prim("ops.ReduceMean")(emit.call("ops.reshape", self, shape), (last - 2, last))


@lowers("mindspore", "aten.adaptive_avg_pool1d.default")
def adaptive_avg_pool1d(emit, self, output_size):
    """adaptive_avg_pool1d(Tensor self, int[1] output_size) -> Tensor"""
    count, length = _one(output_size), self.shape[-1]
    if count == 1:
        return emit.prim("ops.ReduceMean", keep_dims=True)(self, self.rank - 1)
    if not isinstance(length, int) or length % count:
        raise emit.refuse(f"adaptive_avg_pool1d from {length} to {count}: windows of unequal size")
    cut = emit.call("ops.reshape", self, (*emit.dims(self.shape[:-1]), count, length // count))
    return emit.prim("ops.ReduceMean")(cut, self.rank)


@lowers("mindspore", "aten.upsample_nearest2d.vec")
def upsample_nearest2d(emit, input, output_size, scale_factors):
    """upsample_nearest2d.vec(Tensor input, SymInt[]? output_size, float[]? scale_factors) -> Tensor"""
    for axis in (2, 3):
        before, after = input.shape[axis], emit.out.shape[axis]
        if after != before and not (
            isinstance(before, int) and isinstance(after, int) and after % before == 0
        ):
            raise emit.refuse(f"upsample_nearest2d from {before} to {after}: not a whole factor")
    batch, channels, height, width = input.shape
    rows, columns = emit.out.shape[2] // height, emit.out.shape[3] // width
    shape = emit.dims([batch, channels, height])
    spread = emit.call("ops.reshape", input, (*shape, 1, *emit.dims([width]), 1))
    spread = emit.call("ops.broadcast_to", spread, (*shape, rows, *emit.dims([width]), columns))
    return emit.call("ops.reshape", spread, emit.dims(emit.out.shape))
