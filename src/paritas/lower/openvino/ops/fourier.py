# SPDX-License-Identifier: Apache-2.0
"""Fourier transforms.

The plugin's own (2026.4) is exact to its roundings where the size is a power of two. At other sizes it goes up the
angles in float32: 2e-6 off at 10, 1e-5 at 31, 5e-4 at 1000, 3e-3 at 4099, where torch is 1e-6 off or less. There the
transform is written as products with constant matrices, or by transforms of a power of two, as it is for free sizes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.complexes import paired
from paritas.lower.openvino.emit import Emitter, Size, Sizes, Tensor, complex_numbers, out, rank_of
from paritas.lower.openvino.integers import floor_division
from paritas.lower.openvino.ops.registry import lowers

#: A transform of so many is one product with a matrix; sums of more terms are worth splitting.
SMALL = 64
#: The largest matrix of a transform is of so many rows.
LARGEST = 1024


def _scale(emit: Emitter, x: Tensor, axes: Sequence[int], normalization: int, forward: bool) -> Tensor | None:
    """What torch multiplies the result of an unscaled transform by; `x` has the size of the signal."""
    if normalization == 0:
        return None
    count = 1
    for axis in axes:
        count = emit.times(emit.size(x, axis), count)
    whole = emit.number(count, torch.float32)
    return ops.divide(np.float32(1), ops.sqrt(whole) if normalization == 1 else whole)


def _scaled(x: Tensor, factor: Tensor | None) -> Tensor:
    return out(x) if factor is None else out(ops.multiply(x, factor))


def _factors(size: int) -> tuple[int, int] | None:
    """The size as a product of two numbers of at most `LARGEST`, as near as can be; None if it is none."""
    if size <= SMALL:
        return size, 1
    for second in range(math.isqrt(size), 0, -1):
        if size % second == 0 and size // second <= LARGEST:
            return size // second, second
    return None


def _is_exact(size: Size) -> bool:
    """Whether the plugin's own transform is as good as torch's."""
    return isinstance(size, int) and size & (size - 1) == 0


def _rotations(rows: int, columns: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """exp(-2 pi i row column / size) as (cosines, sines), float64[rows, columns]."""
    turns = (np.arange(rows)[:, None] * np.arange(columns)) % size
    return np.cos(2 * np.pi / size * turns), -np.sin(2 * np.pi / size * turns)


def _matrix(size: int) -> np.ndarray:
    """float32[2 size, 2 size]: what takes pairs (real, imaginary), one behind the other, to those of the transform."""
    c, s = _rotations(size, size, size)
    whole = np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], 1)  # [size, 2, size, 2]
    return whole.reshape(2 * size, 2 * size).astype(np.float32)


def _shared(emit: Emitter, key: Sequence[int | str], make: Callable[..., Any]) -> Tensor:
    if key not in emit.shared:
        emit.shared[key] = out(ops.constant(make()))
    return emit.shared[key]


def _times_matrix(emit: Emitter, x: Tensor, size: int) -> Tensor:
    """The transform of the last axis but one, the last being (real, imaginary)."""
    matrix = _shared(emit, ("dft", size), lambda: _matrix(size))
    *before, _, _ = emit.sizes(x)
    flat = emit.reshape(x, [*before, 2 * size])
    return emit.reshape(ops.matmul(flat, matrix, False, False), [*before, size, 2])


def _of_last(emit: Emitter, x: Tensor, size: Size) -> Tensor:
    """The transform of the last axis but one of pairs."""
    if not isinstance(size, int):
        return _of_free_size(emit, x, size)
    factors = _factors(size)
    if factors is None:
        return _by_convolution(emit, x, size)
    first, second = factors
    if second == 1:
        return _times_matrix(emit, x, size)
    # Cooley and Tukey: element a second + b, frequency c + first d.
    *before, _, _ = emit.sizes(x)
    rank = len(before)
    whole = list(range(rank))
    x = emit.reshape(x, [*before, first, second, 2])
    x = emit.transpose(x, [*whole, rank + 1, rank, rank + 2])  # [.., b, a, 2]
    x = _times_matrix(emit, x, first)  # [.., b, c, 2]
    turned = _shared(
        emit, ("twiddles", first, second), lambda: np.stack(_rotations(second, first, size), -1).astype(np.float32)
    )
    x = _multiplied(x, turned)
    x = _times_matrix(emit, emit.transpose(x, [*whole, rank + 1, rank, rank + 2]), second)  # [.., c, d, 2]
    x = emit.transpose(x, [*whole, rank + 1, rank, rank + 2])  # [.., d, c, 2]
    return emit.reshape(x, [*before, size, 2])


def _by_convolution(emit: Emitter, x: Tensor, size: int) -> Tensor:
    """Bluestein: with jk = (j^2 + k^2 - (k-j)^2) / 2 a transform of any size is a convolution, by a power of two."""
    squares = np.arange(size) ** 2 % (2 * size)
    chirp = np.exp(-1j * np.pi / size * squares)
    most = 1 << (2 * size - 2).bit_length()
    kernel = np.zeros(most, complex)
    kernel[:size] = chirp.conj()
    kernel[most - size + 1 :] = chirp.conj()[:0:-1]
    turned = _shared(emit, ("chirp", size), lambda: _pairs(chirp))
    answer = _shared(emit, ("convolution", size), lambda: _pairs(np.fft.fft(kernel)))
    *before, _, _ = emit.sizes(x)
    rank = len(before)
    zeros = emit.full([*before, most - size, 2], 0.0, torch.float32)
    x = ops.concat([_multiplied(x, turned), zeros], rank)
    x = _multiplied(ops.dft(x, emit.array([rank])), answer)
    x = emit.slice(ops.idft(x, emit.array([rank])), 0, size, rank)
    return _multiplied(x, turned)


#: The longest axis of free size; beyond, everything is NaN.
LONGEST = 2**20


def _of_free_size(emit: Emitter, x: Tensor, size: Tensor) -> Tensor:
    """Bluestein, where the size is known at run time only: the power of two and both factors are computed too."""
    rank = rank_of(x) - 2
    size = emit.number(size)
    least = ops.subtract(ops.multiply(size, np.int64(2)), np.int64(1))
    powers = 2 ** np.arange(LONGEST.bit_length() + 1, dtype=np.int64)
    most = ops.reduce_min(ops.select(ops.less(powers, least), powers[-1], powers), emit.array([0]), False)
    count = emit.arange(0, most)
    away = ops.minimum(count, ops.subtract(most, count))
    inside = ops.convert(ops.less(away, size), "f32")
    kernel = ops.multiply(_chirp(emit, away, size), np.array([1, -1], np.float32))
    kernel = ops.multiply(kernel, ops.unsqueeze(inside, np.int64(1)))
    turned = _chirp(emit, emit.arange(0, size), size)
    *before, _, _ = emit.sizes(x)
    zeros = emit.full([*before, out(ops.subtract(most, size)), 2], 0.0, torch.float32)
    axis = emit.array([rank])
    x = ops.dft(ops.concat([_multiplied(x, turned), zeros], rank), axis)
    x = _multiplied(x, ops.dft(kernel, emit.array([0])))
    x = emit.slice(ops.idft(x, axis), 0, size, rank)
    known = ops.select(ops.less_equal(size, np.int64(LONGEST)), np.float32(1), np.float32(np.nan))
    return _multiplied(x, ops.multiply(turned, known))


def _chirp(emit: Emitter, j: Tensor, size: Tensor) -> Tensor:
    """exp(-pi i j^2 / size) as pairs, for j below `LONGEST`: whole turns are taken off the square in whole numbers."""
    turn = ops.multiply(size, np.int64(2))
    high, low = ops.bitwise_right_shift(j, np.int64(9)), ops.bitwise_and(j, np.int64(511))
    square = ops.multiply(floor_division(ops.multiply(high, j), turn)[1], np.int64(512))
    square = floor_division(ops.add(square, ops.multiply(low, j)), turn)[1]
    # In the first quarter, where an angle has the least rounding.
    half = ops.minimum(square, ops.subtract(turn, square))
    quarter = ops.minimum(half, ops.subtract(size, half))
    angle = ops.divide(ops.convert(quarter, "f32"), ops.convert(size, "f32"))
    angle = ops.multiply(angle, np.float32(np.pi))
    one = np.float32(1)
    across = ops.select(ops.less(quarter, half), -one, one)
    above = ops.select(ops.less(half, square), one, -one)
    last = np.int64(1)
    parts = ops.multiply(ops.cos(angle), across), ops.multiply(ops.sin(angle), above)
    return out(ops.concat([ops.unsqueeze(part, last) for part in parts], 1))


def _pairs(values: np.ndarray) -> np.ndarray:
    return np.stack([values.real, values.imag], -1).astype(np.float32)


def _multiplied(x: Tensor, y: Tensor) -> Tensor:
    """The product of two tensors of pairs."""
    a, b, c, d = (ops.gather(v, np.int64(part), np.int64(-1)) for v in (x, y) for part in (0, 1))
    real = ops.subtract(ops.multiply(a, c), ops.multiply(b, d))
    imaginary = ops.add(ops.multiply(a, d), ops.multiply(b, c))
    last = np.int64(-1)
    return out(ops.concat([ops.unsqueeze(real, last), ops.unsqueeze(imaginary, last)], -1))


def transformed(emit: Emitter, x: Tensor, axes: Sequence[int], forward: bool = True) -> Tensor:
    """The transform of pairs along axes, not divided by anything."""
    if not forward:  # the transform of the conjugate is the conjugate of the inverse
        flipped = np.array([1, -1], np.float32)
        return out(ops.multiply(transformed(emit, ops.multiply(x, flipped), axes), flipped))
    own = [axis for axis in axes if _is_exact(emit.size(x, axis))]
    if own:
        x = ops.dft(x, emit.array(sorted(own)))
    rank = rank_of(x)
    for axis in axes:
        if axis in own:
            continue
        order = [a for a in range(rank - 1) if a != axis] + [axis, rank - 1]
        found = _of_last(emit, emit.transpose(x, order), emit.size(x, axis))
        x = emit.transpose(found, [order.index(a) for a in range(rank)])
    return out(x)


def _all_exact(emit: Emitter, x: Tensor, axes: Sequence[int]) -> bool:
    return all(_is_exact(emit.size(x, axis)) for axis in axes)


@lowers("aten._fft_c2c.default")
@complex_numbers
def fft_c2c(emit: Emitter, self: Tensor, dim: Sizes, normalization: int, forward: bool) -> Tensor:
    rank = rank_of(self) - 1
    axes = sorted(axis % rank for axis in dim)
    if not axes:
        return self
    factor = _scale(emit, self, axes, normalization, forward)
    return _scaled(transformed(emit, self, axes, forward), factor)


@lowers("aten._fft_r2c.default")
@complex_numbers
def fft_r2c(emit: Emitter, self: Tensor, dim: Sequence[int], normalization: int, onesided: bool) -> Tensor:
    rank = rank_of(self)
    axes = [axis % rank for axis in dim]
    factor = _scale(emit, self, axes, normalization, True)
    if onesided and _all_exact(emit, self, axes):
        return _scaled(ops.rdft(self, emit.array(axes)), factor)
    found = transformed(emit, paired(emit, self, ops.multiply(self, np.float32(0))), axes)
    if onesided:
        half = emit.size(self, axes[-1])
        half = half // 2 + 1 if isinstance(half, int) else emit.plus(_halved(half), 1)
        found = emit.slice(found, 0, half, axes[-1])
    return _scaled(found, factor)


def _halved(size: Tensor) -> Tensor:
    return out(ops.divide(size, np.int64(2)))


@lowers("aten._fft_c2r.default")
@complex_numbers
def fft_c2r(emit: Emitter, self: Tensor, dim: Sequence[int], normalization: int, last_dim_size: Size) -> Tensor:
    rank = rank_of(self) - 1
    axes = [axis % rank for axis in dim]
    sizes = [emit.size(self, axis) for axis in axes[:-1]] + [last_dim_size]
    count = 1
    for size in sizes:
        count = emit.times(size, count)
    whole = emit.number(count, torch.float32)
    if all(_is_exact(size) for size in sizes):
        found = ops.irdft(self, emit.array(axes), emit.dims(sizes))
        if normalization == 2:
            return found
        return ops.multiply(found, ops.sqrt(whole) if normalization == 1 else whole)
    x = transformed(emit, self, axes[:-1], False) if len(axes) > 1 else self
    found = _real_of_half(emit, x, axes[-1], last_dim_size)
    if normalization == 0:
        return found
    return ops.divide(found, ops.sqrt(whole) if normalization == 1 else whole)


def _real_of_free_half(emit: Emitter, x: Tensor, axis: int, size: Tensor) -> Tensor:
    """The same where the size is known at run time only."""
    rank = rank_of(x)
    held = out(ops.add(_halved(size), np.int64(1)))
    order = [a for a in range(rank - 1) if a != axis] + [axis, rank - 1]
    x = emit.slice(emit.transpose(x, order), 0, held, rank - 2)
    places = emit.arange(0, held)
    middle = ops.equal(ops.multiply(places, np.int64(2)), size)
    alone = ops.logical_or(ops.equal(places, np.int64(0)), middle)
    kept = ops.select(alone, np.float32(0), np.float32(1))
    ones = ops.broadcast(np.float32(1), ops.shape_of(kept))
    ends = ops.concat([ops.unsqueeze(part, np.int64(1)) for part in (ones, kept)], 1)
    x = ops.multiply(x, ends)
    backwards = emit.arange(out(ops.subtract(size, held)), 0, -1)
    rest = ops.multiply(ops.gather(x, backwards, np.int64(rank - 2)), np.array([1, -1], np.float32))
    whole = transformed(emit, ops.concat([x, rest], rank - 2), [rank - 2], False)
    found = ops.gather(whole, np.int64(0), np.int64(-1))
    order = order[:-1]
    return emit.transpose(found, [order.index(a) for a in range(rank - 1)])


def _real_of_half(emit: Emitter, x: Tensor, axis: int, size: Size) -> Tensor:
    """The inverse transform, undivided, of the first half of a Hermitian spectrum; the result is real."""
    if not isinstance(size, int):
        return _real_of_free_half(emit, x, axis, emit.number(size))
    rank = rank_of(x)
    held = size // 2 + 1
    x = emit.slice(x, 0, held, axis)  # torch reads no more of it
    if size > SMALL:
        # The other half is the conjugate of this one, backwards; what is imaginary at 0 (and in the middle) is dropped.
        ends = np.ones((held, 2), np.float32)
        ends[0, 1] = 0
        if size % 2 == 0:
            ends[-1, 1] = 0
        shape = [held if a == axis else 2 if a == rank - 1 else 1 for a in range(rank)]
        x = ops.multiply(x, ends.reshape(shape))
        backwards = np.arange(size - held, 0, -1, dtype=np.int64)
        rest = ops.multiply(ops.gather(x, backwards, np.int64(axis)), np.array([1, -1], np.float32))
        whole = transformed(emit, ops.concat([x, rest], axis), [axis], False)
        return ops.gather(whole, np.int64(0), np.int64(-1))

    def make() -> np.ndarray:
        c, s = _rotations(held, size, size)
        weight = np.full((held, 1), 2.0)
        weight[0] = 1
        if size % 2 == 0:
            weight[-1] = 1
        # The real part of (a + bi)(c - si), s being negative already.
        return np.stack([weight * c, weight * s], 1).reshape(2 * held, size).astype(np.float32)

    matrix = _shared(emit, ("irdft", size), make)
    order = [a for a in range(rank - 1) if a != axis] + [axis, rank - 1]
    x = emit.transpose(x, order)
    *before, _, _ = emit.sizes(x)
    found = ops.matmul(emit.reshape(x, [*before, 2 * held]), matrix, False, False)
    order = order[:-1]
    return emit.transpose(found, [order.index(a) for a in range(rank - 1)])
