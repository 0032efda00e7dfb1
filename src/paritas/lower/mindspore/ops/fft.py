# SPDX-License-Identifier: Apache-2.0
"""Fourier transforms. MindSpore's CPU kernels agree with torch to 1e-6, and take twice its time."""

from typing import Any

import torch

from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Value
from paritas.lower.registry import Arg


@lowers("aten.fft_fft.default", function="ops.fft", size=Arg("n"))
@lowers("aten.fft_ifft.default", function="ops.ifft", size=Arg("n"))
@lowers("aten.fft_rfft.default", function="ops.rfft", size=Arg("n"))
@lowers("aten.fft_irfft.default", function="ops.irfft", size=Arg("n"))
@lowers("aten.fft_fft2.default", "aten.fft_fftn.default", function="ops.fftn", size=Arg("s"))
@lowers("aten.fft_ifft2.default", "aten.fft_ifftn.default", function="ops.ifftn", size=Arg("s"))
@lowers("aten.fft_rfft2.default", "aten.fft_rfftn.default", function="ops.rfftn", size=Arg("s"))
@lowers("aten.fft_irfft2.default", "aten.fft_irfftn.default", function="ops.irfftn", size=Arg("s"))
def transformed(emit: Emitter, function: str, self: Value, size: Any, dim: Any, norm: str | None) -> Value:
    x = emit.cast(self, "float32") if self.dtype not in _WIDE else self
    options = {} if norm is None else {"norm": norm}
    if isinstance(dim, (list, tuple)):
        dim = tuple(d % self.rank for d in dim)
    elif dim is not None:
        dim = dim % self.rank
    if isinstance(size, (list, tuple)):
        size = tuple(size)
    return emit.call(function, x, size, dim, **options)


_WIDE = ("float32", "float64", "complex64", "complex128")


@lowers("aten.stft.default")
def stft(
    emit: Emitter,
    self: Value,
    n_fft: int,
    hop_length: int | None,
    win_length: int | None,
    window: Value | None,
    normalized: bool,
    onesided: bool | None,
    return_complex: bool | None,
    align_to_window: bool | None,
) -> Value:
    if self.dtype not in ("float32", "float64") or onesided is False or align_to_window:
        raise emit.refuse("the spectrogram of complex or half-precision signals, or two-sided")
    hop = n_fft // 4 if hop_length is None else hop_length
    width = n_fft if win_length is None else win_length
    if window is None:
        window = emit.constant(torch.ones(width, dtype=getattr(torch, self.dtype)), "window")
    left = (n_fft - width) // 2
    if width != n_fft:
        kind = emit.dtype(self.dtype)
        edges = [emit.call("ops.zeros", (n,), kind) for n in (left, n_fft - width - left)]
        window = emit.call("ops.cat", (edges[0], window, edges[1]), 0)
    spectrum = emit.prelude("spectrogram", self, window, n_fft, hop)
    if normalized:
        spectrum = emit.infix("*", spectrum, n_fft**-0.5)
    if return_complex:
        return spectrum
    spectrum = emit.let(spectrum, "spectrum")
    parts = (emit.call("ops.real", spectrum), emit.call("ops.imag", spectrum))
    return emit.call("ops.stack", parts, -1)
