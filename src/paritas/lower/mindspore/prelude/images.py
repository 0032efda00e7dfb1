# SPDX-License-Identifier: Apache-2.0
"""Functions on images for generated modules: windows, borders, resizing, sampling.

A library of source text, as `attention_and_norm.py` is. Measured with MindSpore 2.10 on x86 CPUs.
"""

# ruff: noqa: RUF005 - Graph mode joins tuples by + only

from collections.abc import Sequence

import mindspore as ms
from mindspore import Tensor, ops

cut_out = ops.Slice()
columns_t = ops.MatMul(transpose_b=True)
offset_channels = ops.BiasAdd()
spread_over = ops.MatMul()
mean_of = ops.ReduceMean(keep_dims=True)
inverse_root = ops.Rsqrt()
largest_of = ops.ReduceMax()
total_of = ops.ReduceSum()
place_of_largest = ops.Argmax(-1, ms.int64)


def bordered(x: Tensor, axis: int, before: int, after: int, value: float) -> Tensor:
    # ops.Pad is 20 times slower than joining on CPU.
    if before + after == 0:
        return x
    head, tail = x.shape[:axis], x.shape[axis + 1 :]
    first = ops.full(head + (before,) + tail, value, dtype=x.dtype) if before > 0 else x
    last = ops.full(head + (after,) + tail, value, dtype=x.dtype) if after > 0 else x
    if before > 0 and after > 0:
        return ops.cat((first, x, last), axis)
    return ops.cat((first, x), axis) if before > 0 else ops.cat((x, last), axis)


def cut_axis(x: Tensor, axis: int, start: int, size: int) -> Tensor:
    # x[:, start : start + size]; ops.StridedSlice is 20 times slower on CPU.
    if size == x.shape[axis]:
        return x
    begin = [start if i == axis else 0 for i in range(x.ndim)]
    return cut_out(x, begin, x.shape[:axis] + (size,) + x.shape[axis + 1 :])


def convolve_columns(x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    # A 1-d convolution as one matrix product with the taps' shifted copies: no transposition of
    # weight or result. MindSpore's own Conv2D is 70 times slower than torch's on CPU, or slows
    # every matrix product of the process (see run/mindspore.py).
    batch, channels, length = x.shape
    outputs, taps = weight.shape[0], weight.shape[2]
    positions = (length + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
    blocks = positions + dilation * (taps - 1) // stride
    after = max(blocks * stride - length - padding, 0)
    x = cut_axis(bordered(x, 2, padding, after, 0), 2, 0, blocks * stride)
    if stride > 1:
        x = ops.transpose(x.reshape((batch * channels, blocks, stride)), (0, 2, 1))
    x = x.reshape((batch, channels, stride, blocks))
    shape = (batch, channels, 1, positions)
    columns = [
        cut_out(x, (0, 0, tap * dilation % stride, tap * dilation // stride), shape)
        for tap in range(taps)
    ]
    columns = ops.cat(columns, 2).reshape((batch, channels * taps, positions))
    return ops.matmul(weight.reshape((outputs, channels * taps)), columns)


def depth_windows(x: Tensor, taps: int, stride: int, padding: int, dilation: int) -> Tensor:
    # [B, C, D, H, W] as images [B * positions, C * taps, H, W], one for each position of a window
    # along the depth: a 3-d convolution is then a 2-d one.
    x = bordered(x, 2, padding, padding, 0)
    batch, channels, depth, height, width = x.shape
    positions = (depth - dilation * (taps - 1) - 1) // stride + 1
    places = ops.arange(taps) * dilation
    places = places + ops.arange(channels).reshape((-1, 1)) * depth
    places = places + ops.arange(positions).reshape((-1, 1, 1)) * stride
    places = places + ops.arange(batch).reshape((-1, 1, 1, 1)) * (channels * depth)
    planes = ops.gather(x.reshape((-1, height * width)), places.reshape((-1,)), 0)
    return planes.reshape((batch * positions, channels * taps, height, width))


def depth_joined(x: Tensor, batch: int) -> Tensor:
    # The images of `depth_windows`, convolved, as [B, C, positions, H, W].
    images, channels, height, width = x.shape
    x = x.reshape((batch, images // batch, channels, height * width))
    x = ops.transpose(x, (0, 2, 1, 3))
    return x.reshape((batch, channels, images // batch, height, width))


def dilated(weight: Tensor, axis: int, dilation: int) -> Tensor:
    # A kernel with dilation - 1 zeros between its taps.
    taps, shape = weight.shape[axis], weight.shape
    if dilation == 1 or taps == 1:
        return weight
    spread = bordered(ops.expand_dims(weight, axis + 1), axis + 1, 0, dilation - 1, 0)
    spread = spread.reshape(shape[:axis] + (taps * dilation,) + shape[axis + 1 :])
    return cut_axis(spread, axis, 0, dilation * (taps - 1) + 1)


def phase_kernel(weight: Tensor, groups: int, deep: int, high: int, wide: int) -> Tensor:
    # The kernel of a transposed convolution of these strides, [C, O, k1, k2, k3], as that of a
    # plain one whose deep * high * wide outputs per channel are the places between two positions.
    weight = bordered(weight, 2, 0, -weight.shape[2] % deep, 0)
    weight = bordered(weight, 3, 0, -weight.shape[3] % high, 0)
    weight = bordered(weight, 4, 0, -weight.shape[4] % wide, 0)
    channels, outputs, k1, k2, k3 = weight.shape
    layers, rows, columns = k1 // deep, k2 // high, k3 // wide
    if deep > 1:
        weight = weight.reshape((channels * outputs, layers, deep, k2 * k3))
        weight = ops.transpose(weight, (0, 2, 1, 3))
    shape = (groups, channels // groups, outputs * deep, layers * rows, high, columns, wide)
    weight = ops.transpose(weight.reshape(shape), (0, 2, 4, 6, 1, 3, 5))
    turned = weight.reshape((-1, layers * rows * columns))
    turned = ops.gather(
        turned, layers * rows * columns - 1 - ops.arange(layers * rows * columns), 1
    )
    return turned.reshape((-1, channels // groups, layers, rows, columns))


def unphased(x: Tensor, deep: int, high: int, wide: int) -> Tensor:
    # [B, O * deep * high * wide, D, H, W] -> [B, O, D * deep, H * high, W * wide]
    batch, channels, depth, height, width = x.shape
    outputs = channels // (deep * high * wide)
    if deep * high * wide > 1:
        x = x.reshape((batch * outputs, deep, high, wide, depth, height, width))
        x = ops.transpose(x, (0, 4, 1, 5, 2, 6, 3))
    return x.reshape((batch, outputs, depth * deep, height * high, width * wide))


def window_of(x: Tensor, axis: int, start: int, size: int) -> Tensor:
    # x[start : start + size], with zeros after its end.
    return cut_axis(
        bordered(x, axis, 0, max(start + size - x.shape[axis], 0), 0), axis, start, size
    )


# --- normalisation ---


def scaled_channels(x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    # x * scale + offset, one of each per channel. Broadcasting inside an operator takes twice the
    # time on CPU of an outer product with ones.
    batch, channels = x.shape[0], x.shape[1]
    image = x.reshape((batch, channels, -1))
    column = ops.broadcast_to(scale, (batch, channels)).reshape((-1, 1))
    factors = spread_over(column, ops.ones((1, image.shape[2]), x.dtype))
    return offset_channels(image * factors.reshape(image.shape), offset).reshape(x.shape)


def mean_of_rows(rows: Tensor, width: int) -> Tensor:
    # [N, M] -> [N, 1]. The CPU adds one number after another, and of a million the last ones are
    # rounded away: long rows are added in parts of `width`, which takes up to four times as long.
    if rows.shape[1] <= 65536:
        return mean_of(rows, -1)
    parts = mean_of(rows.reshape((rows.shape[0], -1, width)), -1)
    return mean_of(parts.reshape((rows.shape[0], -1)), -1)


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    # As above, 4 times faster than with broadcasting.
    batch, channels = x.shape[0], x.shape[1]
    rows = x.reshape((batch * groups, -1))
    image = (batch, channels, rows.shape[1] * groups // channels)
    centred = rows - spread_over(
        mean_of_rows(rows, x.shape[-1]), ops.ones((1, rows.shape[1]), x.dtype)
    )
    spread = mean_of_rows(centred * centred, x.shape[-1])
    inverse = inverse_root(spread + eps).reshape((batch, groups, 1))
    inverse = ops.broadcast_to(inverse, (batch, groups, channels // groups))
    column = (inverse.reshape((batch, channels)) * weight).reshape((-1, 1))
    factors = spread_over(column, ops.ones((1, image[2]), x.dtype)).reshape(image)
    return offset_channels(centred.reshape(image) * factors, bias).reshape(x.shape)


# --- windows ---


def windows_2d(
    x: Tensor,
    kernel: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int],
    stride: tuple[int, int],
) -> Tensor:
    # [N, C, H, W] -> [N, C * taps, positions], as torch's unfold.
    x = bordered(bordered(x, 2, padding[0], padding[0], 0), 3, padding[1], padding[1], 0)
    batch, channels, height, width = x.shape
    rows = (height - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    columns = (width - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    down = ops.arange(rows).reshape((-1, 1)) * stride[0]
    down = down + ops.arange(kernel[0]).reshape((-1, 1, 1, 1)) * dilation[0]
    right = ops.arange(columns) * stride[1]
    right = right + ops.arange(kernel[1]).reshape((-1, 1, 1)) * dilation[1]
    places = (down * width + right).reshape((-1,))
    found = ops.gather(x.reshape((batch * channels, height * width)), places, 1)
    return found.reshape((batch, channels * kernel[0] * kernel[1], rows * columns))


def gathered_sum(x: Tensor, places: Tensor) -> Tensor:
    # x: [.., n]; places: [m, k], with n for nothing. The sum of k elements each.
    x = bordered(x, x.ndim - 1, 0, 1, 0)
    return total_of(ops.gather(x, places, x.ndim - 1), -1)


def window_maxima(x: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    # The largest of each window and where it is; places: [m, k] into the last axis, whose size
    # means outside. As in torch, NaN is the largest of all.
    axis = x.ndim - 1
    found = ops.gather(bordered(x, axis, 0, 1, -float("inf")), places, axis)
    # Outside must lose against an -inf inside, which argmax, taking the first, would not know.
    inside = ops.broadcast_to(places < x.shape[axis], found.shape)
    order = ops.where(found != found, 2.0, ops.where(found == float("inf"), 1.0, 0.0))
    least = ops.where(inside, ops.where(found == -float("inf"), -1.0, order), -2.0)
    finite = ops.where(least == 0, found, 0.0)
    top = largest_of(least, -1)
    level = ops.broadcast_to(ops.expand_dims(top, -1), found.shape)
    rival = ops.where(least == level, finite, -float("inf"))
    place = place_of_largest(rival)
    chosen = ops.gather_elements(found, axis + 1, ops.expand_dims(place, -1)).squeeze(-1)
    spread = ops.broadcast_to(places, found.shape)
    where = ops.gather_elements(spread, axis + 1, ops.expand_dims(place, -1)).squeeze(-1)
    return chosen, where


# --- resizing: a matrix for each axis ---


def resized(x: Tensor, axis: int, matrix: Tensor) -> Tensor:
    # matrix: [after, before], applied to one axis.
    shape = x.shape
    if axis == x.ndim - 1:
        rows = columns_t(x.reshape((-1, shape[axis])), matrix)
        return rows.reshape(shape[:axis] + (matrix.shape[0],))
    behind = shape[-1] if axis == x.ndim - 2 else shape[-2] * shape[-1]
    mixed = ops.matmul(matrix, x.reshape((-1, shape[axis], behind)))
    return mixed.reshape(shape[:axis] + (matrix.shape[0],) + shape[axis + 1 :])


def sources(after: int, scale: float, align: bool) -> Tensor:
    # The place in the input of each place of the output.
    places = ops.arange(after).astype(ms.float32)
    return places * scale if align else (places + 0.5) * scale - 0.5


def step_of(before: int, after: int, step: float, align: bool) -> Tensor:
    # step: 1 / the scale factor, or 0.0 where the sizes say; not divided here, where Graph mode
    # rounds the factor first and may so come to another pixel.
    if align:
        return (before - 1) / (after - 1) if after > 1 else 0.0
    return step if step > 0.0 else before / after


def linear_matrix(before: int, after: int, step: float, align: bool) -> Tensor:
    places = ops.relu(sources(after, step_of(before, after, step, align), align))
    places = ops.minimum(places, float(before - 1)).reshape((-1, 1))
    return ops.relu(1.0 - ops.abs(places - ops.arange(before).astype(ms.float32)))


def near_cubic(x: Tensor, a: float) -> Tensor:  # |x| <= 1
    return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0


def far_cubic(x: Tensor, a: float) -> Tensor:  # 1 < |x| < 2
    return ((x - 5.0) * x + 8.0) * x * a - 4.0 * a


def cubic(x: Tensor, a: float) -> Tensor:
    x = ops.abs(x)
    return ops.where(x <= 1.0, near_cubic(x, a), ops.where(x < 2.0, far_cubic(x, a), 0.0))


def cubic_matrix(before: int, after: int, step: float, align: bool) -> Tensor:
    places = sources(after, step_of(before, after, step, align), align).reshape((-1, 1, 1))
    taps = ops.floor(places) + ops.arange(-1, 3).reshape((-1, 1)).astype(ms.float32)
    inside = ops.maximum(ops.minimum(taps, float(before - 1)), 0.0)
    hit = (inside == ops.arange(before).astype(ms.float32)).astype(ms.float32)
    return total_of(hit * cubic(taps - places, -0.75), 1)


def smooth_matrix(before: int, after: int, step: float, align: bool, taps: int) -> Tensor:
    # Antialiased: the filter is as wide as the step.
    step = step_of(before, after, step, align)
    narrow = 1.0 / step if step >= 1.0 else 1.0
    centres = (ops.arange(after).astype(ms.float32) + 0.5) * step
    x = (ops.arange(before).astype(ms.float32) - centres.reshape((-1, 1)) + 0.5) * narrow
    weights = ops.relu(1.0 - ops.abs(x)) if taps == 2 else cubic(x, -0.5)
    return weights / ops.broadcast_to(total_of(weights, -1).reshape((-1, 1)), weights.shape)


def nearest_places(before: int, after: int, step: float, offset: float) -> Tensor:
    step = step_of(before, after, step, False)
    places = ops.floor((ops.arange(after).astype(ms.float32) + offset) * step)
    return ops.minimum(places, float(before - 1)).astype(ms.int64)


# --- pools ---


def window_means(
    before: int, after: int, kernel: int, stride: int, padding: int, counts: bool
) -> Tensor:
    # What a mean over whole windows is off by, for one axis, where windows reach over the edge.
    start = ops.arange(after) * stride - padding
    end = ops.minimum(start + kernel, before + padding)
    if not counts:
        start, end = ops.maximum(start, 0), ops.minimum(end, before)
    return kernel / (end - start).astype(ms.float32)


def adaptive_matrix(before: int, after: int) -> Tensor:
    places = ops.arange(after).reshape((-1, 1))
    start, end = places * before // after, ((places + 1) * before + after - 1) // after
    each = ops.arange(before)
    inside = ((each >= start) & (each < end)).astype(ms.float64)
    return inside / ops.broadcast_to((end - start).astype(ms.float64), inside.shape)


def spread_maxima(
    x: Tensor, axis: int, after: int, kernel: int, stride: int, dilation: int
) -> Tensor:
    # The maxima of windows with gaps, along one axis.
    places = ops.arange(after).reshape((-1, 1)) * stride + ops.arange(kernel) * dilation
    found = ops.gather(x, places.reshape((-1,)), axis)
    shape = x.shape[:axis] + (after, kernel) + x.shape[axis + 1 :]
    return largest_of(found.reshape(shape), axis + 1)


# --- sampling at given places ---


def grid_places(grid: Tensor, axis: int, size: int, align: bool) -> Tensor:
    # Coordinates in pixels of axis `axis` of the grid, [N, places], in float32 as in torch.
    at = cut_axis(grid, grid.ndim - 1, axis, 1).reshape((grid.shape[0], -1))
    return (at + 1.0) * ((size - 1) / 2.0) if align else ((at + 1.0) * size - 1.0) / 2.0


def reflected(at: Tensor, size: int, align: bool) -> Tensor:
    # Back and forth between the borders: the middles of the outermost pixels, or their edges.
    low, span = (0.0, size - 1.0) if align else (-0.5, float(size))
    if span == 0.0:
        return ops.zeros_like(at)
    away = ops.abs(at - low)
    turns = ops.floor(away / span)
    rest = away - turns * span
    return ops.where(turns - 2.0 * ops.floor(turns / 2.0) == 0.0, rest + low, span - rest + low)


def within(at: Tensor, size: int) -> Tensor:
    # NaN counts as 0.
    at = ops.where(at != at, 0.0, at)
    return ops.minimum(ops.maximum(at, 0.0), size - 1.0)


def placed(at: Tensor, size: int, border: str, align: bool) -> Tensor:
    if border == "zeros":
        return at
    return within(reflected(at, size, align) if border == "reflection" else at, size)


def pixel_2d(
    pixels: Tensor, first: Tensor, x: Tensor, y: Tensor, width: int, height: int
) -> Tensor:
    inside = (x >= 0.0) & (x <= width - 1.0) & (y >= 0.0) & (y <= height - 1.0)
    # Each by itself: a place far outside may be beyond what float32 counts.
    chosen = within(y, height).astype(ms.int64) * width + within(x, width).astype(ms.int64)
    found = ops.gather(pixels, (chosen + first).reshape((-1,)), 0)
    return ops.where(inside.reshape((-1, 1)), found, ops.zeros_like(found))


def pixel_3d(
    pixels: Tensor,
    first: Tensor,
    x: Tensor,
    y: Tensor,
    z: Tensor,
    width: int,
    height: int,
    depth: int,
) -> Tensor:
    inside = (x >= 0.0) & (x <= width - 1.0) & (y >= 0.0) & (y <= height - 1.0)
    inside = inside & (z >= 0.0) & (z <= depth - 1.0)
    chosen = within(z, depth).astype(ms.int64) * height + within(y, height).astype(ms.int64)
    chosen = chosen * width + within(x, width).astype(ms.int64)
    found = ops.gather(pixels, (chosen + first).reshape((-1,)), 0)
    return ops.where(inside.reshape((-1, 1)), found, ops.zeros_like(found))


def weighed(found: Tensor, weights: Tensor) -> Tensor:
    return found * weights.reshape((-1, 1)).astype(found.dtype)


def sampled_2d(images: Tensor, grid: Tensor, mode: str, border: str, align: bool) -> Tensor:
    batch, channels, height, width = images.shape
    rows, columns = grid.shape[1], grid.shape[2]
    pixels = ops.transpose(images, (0, 2, 3, 1)).reshape((-1, channels))
    first = ops.arange(batch).reshape((-1, 1)) * (height * width)
    x, y = grid_places(grid, 0, width, align), grid_places(grid, 1, height, align)
    if mode != "bicubic":
        x, y = placed(x, width, border, align), placed(y, height, border, align)
    if mode == "nearest":
        out = pixel_2d(pixels, first, ops.round(x), ops.round(y), width, height)
    elif mode == "bilinear":
        left, up = ops.floor(x), ops.floor(y)
        right, down = x - left, y - up
        a = weighed(pixel_2d(pixels, first, left, up, width, height), (1.0 - right) * (1.0 - down))
        b = weighed(pixel_2d(pixels, first, left + 1.0, up, width, height), right * (1.0 - down))
        c = weighed(pixel_2d(pixels, first, left, up + 1.0, width, height), (1.0 - right) * down)
        d = weighed(pixel_2d(pixels, first, left + 1.0, up + 1.0, width, height), right * down)
        out = a + b + c + d
    else:
        left, up = ops.floor(x), ops.floor(y)
        parts = [
            weighed(
                pixel_2d(
                    pixels,
                    first,
                    placed(left + (tap % 4 - 1.0), width, border, align),
                    placed(up + (tap // 4 - 1.0), height, border, align),
                    width,
                    height,
                ),
                cubic(left + (tap % 4 - 1.0) - x, -0.75) * cubic(up + (tap // 4 - 1.0) - y, -0.75),
            )
            for tap in range(16)
        ]
        # A place that is no number gives none, as in torch.
        out = added_up(parts) + ((x - left) * 0.0 + (y - up) * 0.0).reshape((-1, 1))
    return ops.transpose(out.reshape((batch, rows, columns, channels)), (0, 3, 1, 2))


def added_up(parts: Sequence[Tensor]) -> Tensor:
    return total_of(ops.stack(parts), 0)


def sampled_3d(volumes: Tensor, grid: Tensor, mode: str, border: str, align: bool) -> Tensor:
    batch, channels, depth, height, width = volumes.shape
    sizes = grid.shape[1:4]
    pixels = ops.transpose(volumes, (0, 2, 3, 4, 1)).reshape((-1, channels))
    first = ops.arange(batch).reshape((-1, 1)) * (depth * height * width)
    x = placed(grid_places(grid, 0, width, align), width, border, align)
    y = placed(grid_places(grid, 1, height, align), height, border, align)
    z = placed(grid_places(grid, 2, depth, align), depth, border, align)
    if mode == "nearest":
        x, y, z = ops.round(x), ops.round(y), ops.round(z)
        out = pixel_3d(pixels, first, x, y, z, width, height, depth)
    else:
        left, up, near = ops.floor(x), ops.floor(y), ops.floor(z)
        right, down, far = x - left, y - up, z - near
        parts = [
            weighed(
                pixel_3d(
                    pixels,
                    first,
                    left + float(tap % 2),
                    up + float(tap // 2 % 2),
                    near + float(tap // 4),
                    width,
                    height,
                    depth,
                ),
                (right if tap % 2 == 1 else 1.0 - right)
                * (down if tap // 2 % 2 == 1 else 1.0 - down)
                * (far if tap // 4 == 1 else 1.0 - far),
            )
            for tap in range(8)
        ]
        out = added_up(parts)
    return ops.transpose(out.reshape((batch,) + sizes + (channels,)), (0, 4, 1, 2, 3))


def adaptive_windows(before: int, after: int) -> Tensor:
    # For each output the positions of its window; -1 where the window is narrower than others.
    places = ops.arange(after).reshape((-1, 1))
    start, end = places * before // after, ((places + 1) * before + after - 1) // after
    window = start + ops.arange(before // after + 2)
    return ops.where(window < end, window, ops.full_like(window, -1))


def strided_windows(
    before: int, after: int, kernel: int, stride: int, edge: int, dilation: int
) -> Tensor:
    places = ops.arange(after).reshape((-1, 1)) * stride
    window = places + ops.arange(kernel) * dilation - edge
    inside = ops.logical_and(window >= 0, window < before)
    return ops.where(inside, window, ops.full_like(window, -1))


def joined_windows(flat: Tensor, window: Tensor, size: int) -> Tensor:
    # [outputs, taps] of the axes so far, and of one more: all pairs.
    before, here = flat.reshape((-1, 1, flat.shape[1], 1)), window.reshape((-1, 1, window.shape[1]))
    place = before * size + here
    inside = ops.logical_and(before + ops.zeros_like(here) >= 0, here + ops.zeros_like(before) >= 0)
    place = ops.where(inside, place, ops.full_like(place, -1))
    return place.reshape((-1, flat.shape[1] * window.shape[1]))


def outside_last(places: Tensor, first: int, second: int = 1, third: int = 1) -> Tensor:
    # What lies outside is looked up behind the last element.
    return ops.where(places < 0, ops.full_like(places, first * second * third), places)
